"""Endpoints for which the cluster refused a step, and when the next attempt is due. Forgotten by a restart."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from app.core.lifecycle import Refused
from app.core.log_text import clean
from app.core.records import Endpoint

RETRY_S = 1.0
RETRY_MAX_S = 60.0
_REASON_LIMIT = 300


@dataclass(frozen=True)
class _Refusal:
    generation: int
    reason: str
    retry_at: float
    wait_s: float


class Refusals:
    """At most one per endpoint; it stands until a step for that endpoint succeeds, or it is wished anew."""

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._refusals: dict[str, _Refusal] = {}

    def current(self, endpoints: Mapping[str, Endpoint]) -> dict[str, Refused]:
        """Those that still matter, by endpoint ID."""
        self._refusals = {
            endpoint_id: refusal
            for endpoint_id, refusal in self._refusals.items()
            if endpoint_id in endpoints and endpoints[endpoint_id].generation == refusal.generation
        }
        now = self._clock()
        return {
            endpoint_id: Refused(refusal.reason, too_early=now < refusal.retry_at)
            for endpoint_id, refusal in self._refusals.items()
        }

    def add(self, endpoint: Endpoint, what: str, error: Exception) -> None:
        """A step failed. The next attempt is due after RETRY_S, then after twice as long each time."""
        before = self._refusals.get(endpoint.id)
        wait_s = min(before.wait_s * 2, RETRY_MAX_S) if before else RETRY_S
        reason = f"it could not be {what}: {_words(error)}"
        self._refusals[endpoint.id] = _Refusal(endpoint.generation, reason, self._clock() + wait_s, wait_s)

    def settle(self, refused: Mapping[str, Refused], acting: Collection[str]) -> None:
        """Forget those that were due again while there was nothing left to do."""
        for endpoint_id, refusal in refused.items():
            if not refusal.too_early and endpoint_id not in acting:
                self.forget(endpoint_id)

    def forget(self, endpoint_id: str) -> None:
        """A step succeeded."""
        self._refusals.pop(endpoint_id, None)


def _words(error: Exception) -> str:
    """What went wrong, on one line: Ray's errors end with it, after their stack traces."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return clean(lines[-1])[:_REASON_LIMIT]
