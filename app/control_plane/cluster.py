"""The only caller of Serve's deploy and status and of Ray Jobs: wishes in, what Ray says of them out."""

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress
from functools import cached_property
from typing import Any

import ray
import ray._private.state
from ray import serve
from ray._private.services import get_webui_url_from_internal_kv
from ray.core.generated.autoscaler_pb2 import GetClusterResourceStateReply, NodeStatus
from ray.experimental.internal_kv import internal_kv_get_gcs_client
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.serve._private.common import REPLICA_ID_FULL_ID_STR_PREFIX, DeploymentStatusTrigger
from ray.serve._private.constants import SERVE_NAMESPACE
from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus, ReplicaState

from app.core.errors import EngineStartError
from app.core.jobs import RunStatus
from app.core.lifecycle import ApplicationStatus as Status
from app.core.lifecycle import Seen, application_name, parse_application_name
from app.core.log_text import clean
from app.core.slots import machine_resources
from app.core.specs import MachineType
from app.core.waiting import Room, shortage

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
_COMING = (ReplicaState.STARTING, ReplicaState.UPDATING, ReplicaState.RECOVERING)
_CANNOT_START = DeploymentStatusTrigger.REPLICA_STARTUP_FAILED
_REASON_LIMIT = 1000
NOTES_NAMESPACE = b"modelunit"
NOTES_LIMIT = 500
NOTES_TIMEOUT_S = 5.0
WAKE_TIMEOUT_S = 600.0
"""How long a call waits for a unit that nobody else has asked for."""
JOB_CPUS = 0.1
"""For placement only: validating and copying wait for disks and networks most of the time."""
RESOURCES_TIMEOUT_S = 2.0
"""How long Ray may take to tell what is free."""
_SLOW_START = "have taken more than"
"""In Serve's remarks on units that take long to start, which tell an operator nothing that we do not know better."""

log = logging.getLogger("ray.serve")


class Cluster:
    """Ray Serve, from inside the control plane's replica. Every method blocks: call it from a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        """`loop`: the replica's, on which alone its handles can be called."""
        self._loop = loop
        self._waking: dict[str, asyncio.Task[None]] = {}
        """Application -> the call that waits for a unit of it."""

    def observe(self) -> list[Seen]:
        """Every unit application there is.

        Reads what Serve's REST API returns at /api/serve/applications/, as it is: serve.status() would validate all of
        it first, which at one call per period is most of an idle control plane's CPU time.
        """
        seen = []
        leaving: list[str] = []
        for name, app in _get_global_client().get_serve_details()["applications"].items():
            parsed = parse_application_name(name)
            if parsed is None:
                continue
            deployments = app["deployments"].values()
            replicas = [replica for deployment in deployments for replica in deployment["replicas"]]
            texts = [*(deployment["message"] for deployment in deployments), app["message"]]
            unplaced = next((d for d in deployments if _unplaced(d["replicas"], ReplicaState.STARTING)), None)
            if app["status"] == ApplicationStatus.DELETING:
                leaving.append(f"{REPLICA_ID_FULL_ID_STR_PREFIX}{name}#")
            leaving += [replica["actor_name"] for replica in _unplaced(replicas, ReplicaState.STOPPING)]
            seen.append(
                Seen(
                    *parsed,
                    status=_STATUS.get(app["status"], "starting"),
                    reason=_reason([text for text in texts if _SLOW_START not in text]),
                    running_units=sum(replica["state"] == ReplicaState.RUNNING for replica in replicas),
                    phase=_shortage(unplaced["required_resources"]) if unplaced else "",
                    starting_units=sum(replica["state"] in _COMING for replica in replicas),
                    target_units=sum(d["target_num_replicas"] for d in deployments) if deployments else None,
                    starting_since=min((r["start_time_s"] for r in replicas if r["state"] in _COMING), default=None),
                    cannot_start=any(d["status_trigger"] == _CANNOT_START for d in deployments),
                )
            )
        if leaving:
            _give_up_room(tuple(leaving))
        return seen

    def rooms(self) -> list[Room]:
        """The nodes that live. Raises whatever Ray raises."""
        return _rooms(_resource_state())

    def deploy(self, endpoint_id: str, revision: str, application: Any) -> None:
        """Create the application or change it in place; returns before its units run."""
        name = application_name(endpoint_id, revision)
        target = serve.RunTarget(application, name=name, route_prefix=None)
        serve.run_many([target], wait_for_applications_running=False)

    def remove(self, endpoint_id: str, revision: str) -> None:
        """Begin to drain and delete the application; returns at once."""
        serve.delete(application_name(endpoint_id, revision), _blocking=False)

    def wake(self, endpoint_id: str, revision: str) -> None:
        """Have a call wait for a unit of the application, unless one waits already; returns at once."""
        self._loop.call_soon_threadsafe(self._keep_waking, application_name(endpoint_id, revision))

    def submit(self, submission_id: str, entrypoint: str, machine: MachineType | None = None) -> None:
        """Start a job's process, on a machine of this type if one is named.

        One that Ray knows by this ID already is taken for it.
        """
        if self.run_status(submission_id)[0] == "missing":
            taken = _entrypoint_options(machine) if machine else {"entrypoint_num_cpus": JOB_CPUS}
            self._jobs.submit_job(entrypoint=entrypoint, submission_id=submission_id, **taken)

    def run_status(self, submission_id: str) -> tuple[RunStatus, str]:
        """How a job's process is, and Ray's words on it."""
        try:
            info = self._jobs.get_job_info(submission_id)
        except RuntimeError as error:
            if _is_unknown(error):
                return "missing", ""
            raise
        return _RUN_STATUS[info.status], _reason([info.message or ""])

    def logs(self, submission_id: str) -> str | None:
        """All that a job's process has written, whole, for Ray gives no part of it; None when Ray does not know it."""
        try:
            text: str = self._jobs.get_job_logs(submission_id)
        except RuntimeError as error:
            if _is_unknown(error):
                return None
            raise
        return text

    def stop(self, submission_id: str) -> None:
        """Ask a job's process to end; it is killed a few seconds later."""
        self._jobs.stop_job(submission_id)

    def read_notes(self, prefix: str) -> dict[str, bytes]:
        """What processes of ours left in Ray's key-value store under keys that begin so, the first NOTES_LIMIT."""
        store = internal_kv_get_gcs_client()
        keys = sorted(store.internal_kv_keys(prefix.encode(), NOTES_NAMESPACE, NOTES_TIMEOUT_S))[:NOTES_LIMIT]
        if not keys:
            return {}
        found = store.internal_kv_multi_get(keys, NOTES_NAMESPACE, NOTES_TIMEOUT_S)
        return {key.decode(errors="replace"): value for key, value in found.items()}

    def drop_notes(self, keys: Collection[str]) -> None:
        """They are not needed any more."""
        store = internal_kv_get_gcs_client()
        for key in keys:
            store.internal_kv_del(key.encode(), False, NOTES_NAMESPACE, NOTES_TIMEOUT_S)

    def _keep_waking(self, application: str) -> None:
        if application not in self._waking:
            self._waking[application] = self._loop.create_task(_wake(application))
            self._waking[application].add_done_callback(lambda _: self._waking.pop(application))

    @cached_property
    def _jobs(self) -> JobSubmissionClient:
        # What ray.init() would print is not known to a replica; the dashboard itself has written it down.
        return JobSubmissionClient(f"http://{get_webui_url_from_internal_kv()}")


def _entrypoint_options(machine: MachineType) -> dict[str, Any]:
    """What a job's own process sets aside while it runs: as much as a unit on such a machine."""
    resources = machine_resources(machine)
    cpus, gpus = resources.pop("CPU", 0.0), resources.pop("GPU", 0.0)
    options: dict[str, Any] = {"entrypoint_num_cpus": cpus, "entrypoint_num_gpus": gpus}
    if resources:
        options["entrypoint_resources"] = resources
    if machine.labels:
        options["entrypoint_label_selector"] = dict(machine.labels)
    return options


async def _wake(application: str) -> None:
    handle, response = DeploymentHandle("unit", application), None  # Serve would keep one of its own for ever
    try:
        response = handle.wake.remote()
        async with asyncio.timeout(WAKE_TIMEOUT_S):
            await response
    except Exception as error:  # whatever Serve raises: the endpoint's own state tells what is wrong with it
        log.warning("%s was not woken (%s)", application, type(error).__name__)
        if response is not None:
            response.cancel()
    finally:
        await handle.shutdown_async()


def _unplaced(replicas: list[dict[str, Any]], state: ReplicaState) -> list[dict[str, Any]]:
    """The replicas in this state that have no process yet."""
    return [replica for replica in replicas if replica["state"] == state and not replica.get("node_id")]


def _give_up_room(leaving: tuple[str, ...]) -> None:
    """Replicas that are to go, told by how their actors' names begin, wait for no room any more.

    Serve would keep one in the queue, and wait for it to drain for as long as one that works may take.
    """
    for actor in ray._private.state.actors(actor_state_name="PENDING_CREATION").values():
        if actor["Name"].startswith(leaving):
            with suppress(ValueError):  # it is gone already
                ray.kill(ray.get_actor(actor["Name"], namespace=SERVE_NAMESPACE))


def _shortage(needed: dict[str, float]) -> str:
    """Of what there is not enough left; empty when Ray does not wait for it."""
    needed = {name: float(count) for name, count in needed.items() if count}
    try:
        state = _resource_state()
    except Exception:  # whatever Ray raises: it is only a text
        log.debug("Ray does not tell what is free", exc_info=True)
        return ""
    # A process that has its place and is about to begin holds what it needs, and would look like its own rival.
    if not any(dict(pending.request.resources_bundle) == needed for pending in state.pending_resource_requests):
        return ""
    return shortage(needed, _rooms(state))


def _resource_state() -> Any:
    """As ray.autoscaler.v2.sdk reads it, which would wait for an answer for as long as it takes."""
    reply = GetClusterResourceStateReply()
    reply.ParseFromString(internal_kv_get_gcs_client().get_cluster_resource_state(timeout_s=RESOURCES_TIMEOUT_S))
    return reply.cluster_resource_state


def _rooms(state: Any) -> list[Room]:
    return [
        Room(dict(node.total_resources), dict(node.available_resources), dict(node.labels))
        for node in state.node_states
        if node.status != NodeStatus.DEAD
    ]


def _is_unknown(error: RuntimeError) -> bool:
    """Whether Ray says that it knows no such job."""
    return "404" in str(error) or "does not exist" in str(error)


def _reason(texts: list[str]) -> str:
    """What an operator should read: the engine's own words where they are, never a stack trace."""
    for text in texts:
        if reason := EngineStartError.reason_in(text):
            return clean(reason)[:_REASON_LIMIT]
    last = next((text.strip().splitlines()[-1] for text in texts if text.strip()), "")
    return clean(last)[:_REASON_LIMIT]
