"""Waiting until a wish is carried out, and telling what it waits for. Ctrl-C leaves the wish standing."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.text import Text

from app.cli.api import Api, Refused
from app.cli.terminal import errors, interruptible, printable, stopwatch
from app.core.patience import OUTAGE_S, Outcome, Silence
from app.core.waiting import without_counts
from app.local import StartFailed

POLL_S = 0.5
AWAY = "the control plane does not answer; the wish stands"
_JOB_ENDED = ("completed", "failed", "stopped")

Clock = Callable[[], float]
Tell = Callable[[str], None]
T = TypeVar("T")


def wait_for_endpoint(
    api: Api,
    endpoint_id: str,
    timeout_s: float | None = None,
    clock: Clock = time.monotonic,
    *,
    awake: bool = False,
) -> tuple[dict[str, Any], bool]:
    """The endpoint once its wish is carried out, or cannot be, or the time is over; and whether it serves.

    `awake`: it is waited until a unit runs, whatever else is on its way; else one that sleeps serves as well.
    Raises StartFailed where nothing is heard of it.
    """
    say, outcome, started = _once(stopwatch()), Outcome(awake=awake), clock()
    latest: dict[str, Any] | None = None
    goes_on, stands = _wish_stands("endpoints", endpoint_id), "the wish stands"
    if awake:
        goes_on, stands = _wakes(endpoint_id), "it goes on waking"
    with interruptible(goes_on), errors.status(endpoint_id) as spinner:

        def tell(line: str) -> None:
            spinner.update(Text(line))
            say(line)

        ask = _Asker(tell, clock)
        while True:
            if endpoint := ask(lambda: api.call("GET", f"endpoints/{endpoint_id}")):
                latest = endpoint
                tell(printable(f"{endpoint['state']}: {endpoint['reason']}".removesuffix(": ")))
                serves = outcome.serves(endpoint, clock())
                if serves is not None:
                    return endpoint, serves
            if timeout_s is not None and clock() - started >= timeout_s:
                over = f"{endpoint_id} does not serve after {timeout_s:.0f} s; {stands}"
                if latest is None:
                    raise StartFailed(over)
                errors.print(over)
                return latest, False
            time.sleep(POLL_S)


def wait_for_model(api: Api, model_id: str, clock: Clock = time.monotonic) -> dict[str, Any]:
    """The model once it is made or failed; meanwhile a bar shows how far it is. Raises StartFailed."""
    ask = _Asker(errors.print, clock)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        interruptible(_wish_stands("models", model_id)),
        Progress(*columns, console=errors, transient=True) as progress,
    ):
        bar = progress.add_task("preparing", total=None)
        while True:
            model: dict[str, Any] | None = ask(lambda: api.call("GET", f"models/{model_id}"))
            if model and model["state"] != "preparing":
                return model
            if model and (made := ask(lambda: api.list(f"models/{model_id}/jobs"))):
                job = made[-1]
                total = job["total_bytes"] or None
                progress.update(
                    bar, description=f"{job['type']} {job['state']}", total=total, completed=job["done_bytes"]
                )
            time.sleep(POLL_S)


def wait_for_job(api: Api, job: dict[str, Any], clock: Clock = time.monotonic) -> dict[str, Any]:
    """The job once it has ended. Raises StartFailed."""
    ask, path = _Asker(errors.print, clock), f"jobs/{job['id']}"
    while job["state"] not in _JOB_ENDED:
        time.sleep(POLL_S)
        job = ask(lambda: api.call("GET", path)) or job
    return job


class _Asker:
    """Asks the control plane again and again, which may be away for a while: another may be about to take over."""

    def __init__(self, tell: Tell, clock: Clock):
        self._tell = tell
        self._clock = clock
        self._silence = Silence()
        self._answered = True

    def __call__(self, question: Callable[[], T]) -> T | None:
        """The answer; None where there is none now. Raises StartFailed once there has been none for too long."""
        answer, answered = None, True
        try:
            answer = question()
        except httpx.TransportError:
            answered = False
        except Refused as refusal:
            if refusal.status < 500:
                raise
            answered = False
        if self._silence.too_long(self._clock(), answered=answered):
            raise StartFailed(f"the control plane has not answered for {OUTAGE_S:.0f} s; the wish stands")
        if self._answered and not answered:
            self._tell(AWAY)
        self._answered = answered
        return answer


def _once(say: Tell) -> Tell:
    """Says a line where it is another than the one before."""
    said = ""

    def tell(line: str) -> None:
        nonlocal said
        if without_counts(line) != said:
            said = without_counts(line)
            say(line)

    return tell


def _wish_stands(kind: str, which: str) -> str:
    return (
        f"the wish stands and {which} goes on. 'modelunit {kind} get {which}' shows it, "
        f"'modelunit {kind} delete {which}' takes it back"
    )


def _wakes(which: str) -> str:
    return f"{which} goes on waking. 'modelunit endpoints get {which}' shows it; it sleeps again when nobody calls"
