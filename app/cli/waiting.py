"""Waiting until a wish is carried out, and telling what it waits for. Ctrl-C leaves the wish standing."""

import time
from collections.abc import Callable
from typing import Any

import httpx
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from app.cli.api import Api, Refused
from app.cli.terminal import errors, interruptible
from app.core.waiting import without_counts
from app.local import StartFailed

POLL_S = 0.5
FAILED_FOR_S = 5.0
"""A state that ends the waiting must last so long: it may still be that of the wish before."""
OUTAGE_S = 300.0
"""How long the control plane may be away while somebody waits for an endpoint."""
_SERVES = ("healthy", "sleeping")
_CANNOT_SERVE = ("abnormal", "alarm", "stopped", "deleting")
_JOB_ENDED = ("completed", "failed", "stopped")


def wait_for_endpoint(
    api: Api, endpoint_id: str, clock: Callable[[], float] = time.monotonic, *, awake: bool = False
) -> tuple[dict[str, Any], bool]:
    """The endpoint once its wish is carried out, or cannot be, and which of the two. Raises StartFailed.

    `awake`: it is waited until a unit runs, whatever else is on its way; else one that sleeps serves as well.
    """
    started = seen_at = clock()
    failing_since: float | None = None
    told = ""
    with interruptible(_wish_stands("endpoints", endpoint_id)), errors.status(endpoint_id) as spinner:
        while True:
            endpoint, now = _seen(api, endpoint_id), clock()
            if endpoint is None:
                line = "the control plane does not answer; the wish stands"
                if now - seen_at > OUTAGE_S:
                    raise StartFailed(f"the control plane has not answered for {OUTAGE_S:.0f} s; the wish stands")
            else:
                seen_at = now
                line = f"{endpoint['state']}: {endpoint['reason']}".removesuffix(": ")
                failing_since = (failing_since or now) if endpoint["state"] in _CANNOT_SERVE else None
            spinner.update(line)
            if without_counts(line) != told:
                told = without_counts(line)
                errors.print(f"[{now - started:5.1f} s] {line}")
            if endpoint is not None:
                done = endpoint["state"] in _SERVES and endpoint["observed_generation"] == endpoint["generation"]
                if endpoint["units"]["running"] if awake else done:
                    return endpoint, True
                if failing_since is not None and now - failing_since >= FAILED_FOR_S:
                    return endpoint, False
            time.sleep(POLL_S)


def wait_for_model(api: Api, model_id: str) -> dict[str, Any]:
    """The model once it is made or failed; meanwhile a bar shows how far it is."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        interruptible(_wish_stands("models", model_id)),
        Progress(*columns, console=errors, transient=True) as progress,
    ):
        bar = progress.add_task("preparing", total=None)
        while True:
            model: dict[str, Any] = api.call("GET", f"models/{model_id}")
            if model["state"] != "preparing":
                return model
            if made := api.list(f"models/{model_id}/jobs"):
                job = made[-1]
                total = job["total_bytes"] or None
                progress.update(
                    bar, description=f"{job['type']} {job['state']}", total=total, completed=job["done_bytes"]
                )
            time.sleep(POLL_S)


def wait_for_job(api: Api, job: dict[str, Any]) -> dict[str, Any]:
    """The job once it has ended."""
    while job["state"] not in _JOB_ENDED:
        time.sleep(POLL_S)
        job = api.call("GET", f"jobs/{job['id']}")
    return job


def _wish_stands(kind: str, which: str) -> str:
    return (
        f"the wish stands and {which} goes on. 'modelunit {kind} get {which}' shows it, "
        f"'modelunit {kind} delete {which}' takes it back"
    )


def _seen(api: Api, endpoint_id: str) -> dict[str, Any] | None:
    """The endpoint; None while the control plane does not answer, for it may be about to return."""
    try:
        found: dict[str, Any] = api.call("GET", f"endpoints/{endpoint_id}")
    except httpx.TransportError:
        return None
    except Refused as refusal:
        if refusal.status < 500:
            raise
        return None
    return found
