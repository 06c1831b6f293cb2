"""How much a workspace may have: lists, look-ups and the routing table hold all of it."""

from app.core.errors import Conflict
from app.core.jobs import UNFINISHED
from app.core.records import Endpoint, Job, Model
from app.store.database import Registry


class Bounds:
    """Each method is called with the lock held, before a record of its kind is added, and raises Conflict."""

    def __init__(self, registry: Registry, *, endpoints: int, models: int, unfinished_jobs: int):
        self._registry = registry
        self._endpoints = endpoints
        self._models = models
        self._unfinished_jobs = unfinished_jobs

    def new_endpoint(self, workspace: str) -> None:
        """Of deleted ones that can be restored there may be as many again."""
        self.restored_endpoint(workspace)
        every = self._registry.count(Endpoint, workspace=workspace)
        deleted = every - self._registry.count(Endpoint, workspace=workspace, deleted_at=None)
        if deleted >= self._endpoints:
            raise Conflict(
                f"This workspace has {deleted} deleted endpoints that can be restored, and may have {self._endpoints}: "
                "purge some first, with DELETE and purge=true."
            )

    def restored_endpoint(self, workspace: str) -> None:
        """Those that are stopped count too."""
        count = self._registry.count(Endpoint, workspace=workspace, deleted_at=None)
        self._require(count, self._endpoints, "endpoints", "delete some first", "endpoints_per_workspace")

    def model(self, workspace: str) -> None:
        """Its preparation is a job."""
        self.finished_model(workspace)
        self.job(workspace)

    def finished_model(self, workspace: str) -> None:
        """One that a job is to make."""
        count = self._registry.count(Model, workspace=workspace)
        self._require(count, self._models, "models", "delete some first", "models_per_workspace")

    def job(self, workspace: str) -> None:
        """Those that have ended do not count."""
        count = self._registry.count(Job, workspace=workspace, state=UNFINISHED)
        what, remedy = "jobs that have not ended", "wait for some, or stop them"
        self._require(count, self._unfinished_jobs, what, remedy, "unfinished_jobs_per_workspace")

    def _require(self, count: int, limit: int, what: str, remedy: str, setting: str) -> None:
        if count >= limit:
            raise Conflict(
                f"This workspace has {count} {what} already, and may have {limit}: {remedy}, or raise {setting} in the "
                "control plane's args."
            )
