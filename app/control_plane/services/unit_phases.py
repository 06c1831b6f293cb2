"""What units that start say of themselves. Kept in memory only: they say it again every few seconds."""

import threading
from collections.abc import Callable

KEPT_S = 15.0
"""A unit that has said nothing for so long has started, or is gone."""
MAX_UNITS = 4096
MAX_LENGTH = 200
READY = "ready"
"""Said of a unit whose engine runs, until Serve sends it requests."""
READY_KEPT_S = 5.0
"""Serve needs a second or two; a unit that sleeps right after its start says nothing of the next one."""


class UnitPhases:
    """The phase of each unit that starts. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._lock = threading.Lock()
        self._heard: dict[tuple[str, str, str], tuple[str, float]] = {}
        """(endpoint ID, revision, unit) -> its phase and when it was said; who spoke first comes first."""

    def hear(self, endpoint_id: str, revision: str, unit: str, phase: str) -> bool:
        """A unit's newest phase; whether nothing was known of that unit. Beyond MAX_UNITS nobody new is listened to."""
        key = (endpoint_id, revision, unit)
        with self._lock:
            is_new = key not in self._heard
            if not is_new or len(self._heard) < MAX_UNITS:
                self._heard[key] = (phase[:MAX_LENGTH], self._clock())
        return is_new

    def started(self, endpoint_id: str, revision: str, unit: str) -> bool:
        """The unit's engine runs; whether that is news."""
        key = (endpoint_id, revision, unit)
        with self._lock:
            is_news = key in self._heard and self._heard[key][0] != READY
            if is_news:
                self._heard[key] = (READY, self._clock())
        return is_news

    def current(self) -> dict[tuple[str, str], str]:
        """(endpoint ID, revision) -> what the unit says that spoke first, so is the furthest; READY if all are."""
        phases: dict[tuple[str, str], str] = {}
        with self._lock:
            now = self._clock()
            self._heard = {
                key: (phase, at)
                for key, (phase, at) in self._heard.items()
                if now - at < (READY_KEPT_S if phase == READY else KEPT_S)
            }
            for (endpoint_id, revision, _), (phase, _) in self._heard.items():
                if phases.setdefault((endpoint_id, revision), phase) == READY:
                    phases[endpoint_id, revision] = phase
        return phases

    def forget(self, endpoint_id: str) -> None:
        """The endpoint is no more."""
        with self._lock:
            self._heard = {key: heard for key, heard in self._heard.items() if key[0] != endpoint_id}
