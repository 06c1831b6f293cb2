"""The only caller of Serve's deploy and status and of Ray Jobs: wishes in, what Ray says of them out."""

from functools import cached_property
from typing import Any

from ray import serve
from ray._private.services import get_webui_url_from_internal_kv
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus, ReplicaState

from app.core.errors import EngineStartError, without_paths
from app.core.jobs import RunStatus
from app.core.lifecycle import ApplicationStatus as Status
from app.core.lifecycle import Seen, application_name, parse_application_name

_STATUS: dict[str, Status] = {
    ApplicationStatus.NOT_STARTED: "starting",
    ApplicationStatus.DEPLOYING: "starting",
    ApplicationStatus.RUNNING: "running",
    ApplicationStatus.UNHEALTHY: "unhealthy",
    ApplicationStatus.DEPLOY_FAILED: "failed",
    ApplicationStatus.DELETING: "leaving",
}
_RUN_STATUS: dict[str, RunStatus] = {
    JobStatus.PENDING: "pending",
    JobStatus.RUNNING: "running",
    JobStatus.STOPPED: "stopped",
    JobStatus.SUCCEEDED: "succeeded",
    JobStatus.FAILED: "failed",
}
_REASON_LIMIT = 1000
JOB_CPUS = 0.1
"""For placement only: validating and copying wait for disks and networks most of the time."""


class Cluster:
    """Ray Serve, from inside the control plane's replica. Every method blocks: call it from a thread."""

    def observe(self) -> list[Seen]:
        """Every unit application there is.

        Reads what Serve's REST API returns at /api/serve/applications/, as it is: serve.status() would validate all of
        it first, which at one call per period is most of an idle control plane's CPU time.
        """
        seen = []
        for name, app in _get_global_client().get_serve_details()["applications"].items():
            parsed = parse_application_name(name)
            if parsed is None:
                continue
            deployments = app["deployments"].values()
            replicas = [replica for deployment in deployments for replica in deployment["replicas"]]
            texts = [app["message"], *(deployment["message"] for deployment in deployments)]
            seen.append(
                Seen(
                    *parsed,
                    status=_STATUS.get(app["status"], "starting"),
                    reason=_reason(texts),
                    running_units=sum(replica["state"] == ReplicaState.RUNNING for replica in replicas),
                )
            )
        return seen

    def deploy(self, endpoint_id: str, revision: str, application: Any) -> None:
        """Create the application or change it in place; returns before its units run."""
        name = application_name(endpoint_id, revision)
        target = serve.RunTarget(application, name=name, route_prefix=None)
        serve.run_many([target], wait_for_applications_running=False)

    def remove(self, endpoint_id: str, revision: str) -> None:
        """Begin to drain and delete the application; returns at once."""
        serve.delete(application_name(endpoint_id, revision), _blocking=False)

    def submit(self, submission_id: str, entrypoint: str) -> None:
        """Start a job's process; one that Ray knows by this ID already is taken for it."""
        if self.run_status(submission_id)[0] == "missing":
            self._jobs.submit_job(entrypoint=entrypoint, submission_id=submission_id, entrypoint_num_cpus=JOB_CPUS)

    def run_status(self, submission_id: str) -> tuple[RunStatus, str]:
        """How a job's process is, and Ray's words on it."""
        try:
            info = self._jobs.get_job_info(submission_id)
        except RuntimeError as error:
            if "404" in str(error) or "does not exist" in str(error):
                return "missing", ""
            raise
        return _RUN_STATUS[info.status], _reason([info.message or ""])

    def stop(self, submission_id: str) -> None:
        """Ask a job's process to end; it is killed a few seconds later."""
        self._jobs.stop_job(submission_id)

    @cached_property
    def _jobs(self) -> JobSubmissionClient:
        # What ray.init() would print is not known to a replica; the dashboard itself has written it down.
        return JobSubmissionClient(f"http://{get_webui_url_from_internal_kv()}")


def _reason(texts: list[str]) -> str:
    """What an operator should read: the engine's own words where they are, never a stack trace."""
    for text in texts:
        if reason := EngineStartError.reason_in(text):
            return reason[:_REASON_LIMIT]
    last = next((text.strip().splitlines()[-1] for text in texts if text.strip()), "")
    return without_paths(last)[:_REASON_LIMIT]
