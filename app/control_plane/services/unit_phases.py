"""What units that start say of themselves. Kept in memory only: they say it again every few seconds."""

import threading
from collections.abc import Callable

KEPT_S = 15.0
"""A unit that has said nothing for so long has started, or is gone."""
MAX_UNITS = 4096
MAX_LENGTH = 200


class UnitPhases:
    """The phase of each unit that starts. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._lock = threading.Lock()
        self._heard: dict[tuple[str, str, str], tuple[str, float]] = {}
        """(endpoint ID, revision, unit) -> its phase and when it was said; who spoke first comes first."""

    def hear(self, endpoint_id: str, revision: str, unit: str, phase: str) -> None:
        """A unit's newest phase. Beyond MAX_UNITS at a time nobody new is listened to."""
        key = (endpoint_id, revision, unit)
        with self._lock:
            if key in self._heard or len(self._heard) < MAX_UNITS:
                self._heard[key] = (phase[:MAX_LENGTH], self._clock())

    def current(self) -> dict[tuple[str, str], str]:
        """(endpoint ID, revision) -> the phase of the unit that is the furthest, as it spoke first."""
        phases: dict[tuple[str, str], str] = {}
        with self._lock:
            recent = self._clock() - KEPT_S
            self._heard = {key: heard for key, heard in self._heard.items() if heard[1] > recent}
            for (endpoint_id, revision, _), (phase, _) in self._heard.items():
                phases.setdefault((endpoint_id, revision), phase)
        return phases

    def forget(self, endpoint_id: str) -> None:
        """The endpoint is no more."""
        with self._lock:
            self._heard = {key: heard for key, heard in self._heard.items() if key[0] != endpoint_id}
