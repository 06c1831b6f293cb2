"""How long somebody waits who has made a wish: the same at the command line and in the Python client."""

from collections.abc import Mapping
from typing import Any

OUTAGE_S = 300.0
"""How long the control plane may be away: usually another takes over within a minute."""
FAILED_FOR_S = 5.0
"""A state that ends the waiting must last so long: it may still be that of the wish before."""
_SERVES = ("healthy", "sleeping", "scaling", "waking")
_CANNOT_SERVE = ("abnormal", "alarm", "stopped", "deleting")


class Silence:
    """For how long the control plane has not answered."""

    def __init__(self) -> None:
        self._since: float | None = None

    def too_long(self, now: float, *, answered: bool) -> bool:
        """Whether to give up, now that it has answered or has not."""
        if answered:
            self._since = None
        elif self._since is None:
            self._since = now
        return self._since is not None and now - self._since > OUTAGE_S


class Outcome:
    """What comes of a wish for an endpoint, told from its record, again and again."""

    def __init__(self, *, awake: bool = False) -> None:
        """`awake`: a unit of it is to run, whatever else is on its way; else one that sleeps serves as well."""
        self._awake = awake
        self._failing_since: float | None = None

    def serves(self, endpoint: Mapping[str, Any], now: float) -> bool | None:
        """Whether it serves as was wished; None while that is open."""
        done = endpoint["state"] in _SERVES and endpoint["observed_generation"] == endpoint["generation"]
        if endpoint["units"]["running"] if self._awake else done:
            return True
        if endpoint["state"] not in _CANNOT_SERVE:
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = now
        return False if self._failing_since is not None and now - self._failing_since >= FAILED_FOR_S else None
