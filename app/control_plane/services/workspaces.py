"""Workspaces: the tenants. Everything else belongs to one."""

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime

from app.control_plane.services.events import event
from app.control_plane.services.idempotency import Proof, no_proof
from app.control_plane.services.jobs import Jobs
from app.control_plane.services.keys import ADMIN_KEY_ID, Keys
from app.core.errors import Conflict, NotFound
from app.core.jobs import UNFINISHED
from app.core.names import new_id
from app.core.records import DEFAULT_WORKSPACE, ApiKey, Endpoint, Job, Member, Model, Workspace
from app.store.database import Registry

MAX_WORKSPACES = 1000

log = logging.getLogger("ray.serve")


class Workspaces:
    """All workspaces. What happens to them is told in the first one, whose admins they are managed by."""

    def __init__(
        self,
        registry: Registry,
        keys: Keys,
        jobs: Jobs,
        lock: threading.RLock,
        changed: Callable[[], None],
        now: Callable[[], datetime],
    ):
        self._registry = registry
        self._keys = keys
        self._jobs = jobs
        self._lock = lock
        self._changed = changed
        self._now = now

    def ensure_default(self) -> None:
        """Have the first workspace."""
        if self._registry.get(Workspace, DEFAULT_WORKSPACE) is None:
            self._registry.put(Workspace(id=DEFAULT_WORKSPACE, created_at=self._now(), name=DEFAULT_WORKSPACE))

    def create(self, name: str, proof: Proof = no_proof) -> tuple[Workspace, ApiKey, str]:
        """A new workspace, the record of its first admin key, and that key, which nobody can see again.

        Raises Conflict: name taken, too many.
        """
        now = self._now()
        workspace = Workspace(id=new_id("ws", now), created_at=now, name=name)
        record, key = self._keys.new(workspace.id, "admin", "the workspace's first key")
        with self._lock:
            if self._registry.find(Workspace, name=name):
                raise Conflict(f"There is a workspace named {name} already.", "name")
            if (count := self._registry.count(Workspace)) >= MAX_WORKSPACES:
                raise Conflict(f"There are {count} workspaces already, and may be {MAX_WORKSPACES}.")
            issued = event(workspace.id, record.id, "issued", f"admin key {record.prefix}...")
            created = event(DEFAULT_WORKSPACE, workspace.id, "created", f"workspace {name}")
            self._registry.put(workspace, record, issued, created, *proof(workspace.id))
        self._changed()
        return workspace, record, key

    def issue_admin_key(
        self, workspace_id: str, description: str, proof: Proof = no_proof, *, alone: bool
    ) -> tuple[ApiKey, str]:
        """Another admin key, for a workspace that has lost its own: its record, and the key itself, shown once.

        `alone`: the workspace's other admin keys end now. Raises NotFound, and Conflict when there are too many.
        """
        with self._lock:
            workspace = self.get(workspace_id)
            if alone:
                for key in self._keys.find(workspace.id):
                    if key.role == "admin" and key.id != ADMIN_KEY_ID:
                        self._keys.revoke(workspace.id, key.id)
            return self._keys.issue(workspace.id, "admin", description, proof=proof)

    def find(self) -> list[Workspace]:
        """All workspaces, oldest first."""
        return self._registry.find(Workspace)

    def get(self, workspace_id: str) -> Workspace:
        """One workspace. Raises NotFound."""
        workspace = self._registry.get(Workspace, workspace_id)
        if workspace is None:
            raise NotFound("There is no such workspace.", "workspace_id")
        return workspace

    def delete(self, workspace_id: str) -> None:
        """Remove a workspace with its keys, members, events and finished jobs; its audit stays.

        Raises NotFound, and Conflict for the first one and while it has endpoints, models or jobs that run.
        """
        workspace = self.get(workspace_id)
        if workspace.id == DEFAULT_WORKSPACE:
            raise Conflict("The first workspace cannot be deleted.")
        with self._lock:
            self._check_empty(workspace)
            jobs = self._jobs.find(workspace.id)
            kinds: tuple[type[ApiKey] | type[Member], ...] = (ApiKey, Member)
            owned = [record for kind in kinds for record in self._registry.find(kind, workspace=workspace.id)]
            note = event(DEFAULT_WORKSPACE, workspace.id, "deleted", f"workspace {workspace.name}")
            self._registry.change(put=[note], delete=[*jobs, *owned, workspace])
        self._changed()
        self._delete_files(jobs)

    def _delete_files(self, jobs: Sequence[Job]) -> None:
        """Not in the lock: it waits for the object store."""
        for place, job in enumerate(jobs):
            try:
                self._jobs.delete_files(job)
            except OSError as error:
                left = ", ".join(left.id for left in jobs[place:])
                log.warning("files of jobs whose workspace is gone stay in the object store: %s (%s)", left, error)
                return

    def _check_empty(self, workspace: Workspace) -> None:
        endpoints = self._registry.find(Endpoint, workspace=workspace.id)
        left = [
            f"endpoint {e.id} ({e.spec.name}) is {'deleted, not purged' if e.deleted_at else e.state}"
            for e in endpoints
        ]
        left += [
            f"model {model.id} ({model.name}) is {model.state}"
            for model in self._registry.find(Model, workspace=workspace.id)
        ]
        left += [
            f"job {job.id} ({job.type}) is {job.state}"
            for job in self._registry.find(Job, workspace=workspace.id, state=list(UNFINISHED))
        ]
        if left:
            more = f"; and {len(left) - 5} more" if len(left) > 5 else ""
            raise Conflict(f"Workspace {workspace.name} is in use: {'; '.join(left[:5])}{more}.")
