"""Virtual time: what happens next happens at once."""

import heapq
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any


class Events:
    """A clock, and all that is still to happen. What is due at the same moment happens in the order it was planned."""

    def __init__(self, start_s: float):
        self.now_s = start_s
        """Unix time."""
        self._planned: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = count()

    def clock(self) -> float:
        """For whatever measures time by a function."""
        return self.now_s

    def wall(self) -> datetime:
        """The same as a moment."""
        return datetime.fromtimestamp(self.now_s, UTC)

    def at(self, at_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Plan something; what is past happens next."""
        heapq.heappush(self._planned, (max(at_s, self.now_s), next(self._numbers), action, arguments))

    def after(self, delay_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Plan something from now on."""
        heapq.heappush(self._planned, (self.now_s + delay_s, next(self._numbers), action, arguments))

    def run(self, until_s: float) -> None:
        """Let happen all that is due until then."""
        planned = self._planned
        while planned and planned[0][0] <= until_s:
            self.now_s, _, action, arguments = heapq.heappop(planned)
            action(*arguments)
        self.now_s = until_s
