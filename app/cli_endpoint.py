"""One endpoint as a person names it, and waiting for it."""

import re
import time
from collections.abc import Callable
from typing import Annotated, Any

import httpx
import typer

from app.core.waiting import without_counts
from app.local import StartFailed
from app.terminal import Api, Refused, errors

WhichEndpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="An endpoint's ID or name.")]

POLL_S = 0.5
FAILED_FOR_S = 5.0
"""A state that ends the waiting must last so long: it may still be that of the wish before."""
OUTAGE_S = 300.0
"""How long the control plane may be away while somebody waits."""
_ID = re.compile(r"ep-\d{14}-[a-z0-9]+")
_SERVES = ("healthy", "sleeping")
_CANNOT_SERVE = ("abnormal", "alarm", "stopped", "deleting")


def endpoint_id(api: Api, which: str, *, deleted: bool = False) -> str:
    """The ID of the endpoint that a person means; `deleted`: one that can be restored. Raises StartFailed."""
    if _ID.fullmatch(which):
        return which
    found = api.list("endpoints", name=which, deleted="true" if deleted else None)
    if len(found) == 1:
        return str(found[0]["id"])
    if found:
        raise StartFailed(f"several were named {which}, say which by its ID: {', '.join(one['id'] for one in found)}")
    raise StartFailed(f"there is no {'deleted ' if deleted else ''}endpoint named {which}")


def watched(api: Api, which: str, clock: Callable[[], float] = time.monotonic) -> tuple[dict[str, Any], bool]:
    """The endpoint once its wish is carried out, or cannot be, and which of the two; tells what it waits for.

    Ctrl-C leaves the wish standing. Raises StartFailed.
    """
    try:
        return _watched(api, which, clock)
    except KeyboardInterrupt:
        errors.print(
            f"interrupted; the wish stands and {which} goes on. 'modelunit endpoints get {which}' shows it, "
            f"'modelunit endpoints delete {which}' takes it back"
        )
        raise typer.Exit(1) from None


def _watched(api: Api, which: str, clock: Callable[[], float]) -> tuple[dict[str, Any], bool]:
    started = seen_at = clock()
    failing_since: float | None = None
    told = ""
    with errors.status(which) as spinner:
        while True:
            endpoint, now = _seen(api, which), clock()
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
                if endpoint["state"] in _SERVES and endpoint["observed_generation"] == endpoint["generation"]:
                    return endpoint, True
                if failing_since is not None and now - failing_since >= FAILED_FOR_S:
                    return endpoint, False
            time.sleep(POLL_S)


def _seen(api: Api, which: str) -> dict[str, Any] | None:
    """The endpoint; None while the control plane does not answer, for it may be about to return."""
    try:
        found: dict[str, Any] = api.call("GET", f"endpoints/{which}")
    except httpx.TransportError:
        return None
    except Refused as refusal:
        if refusal.status < 500:
            raise
        return None
    return found
