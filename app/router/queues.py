"""How many requests an endpoint or workspace may have under way at this router, so that nothing grows for ever."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from app.core.errors import QueueFull
from app.core.routing import Route, RoutingTable
from app.core.wakes import come_back_after_s
from app.router.crowd import MAX_REQUESTS
from app.router.figures import Figures

BODIES_LIMIT_BYTES = 512 << 20
"""Of the requests of all endpoints together: each is kept until its answer is complete."""
WORKSPACE_SHARE = 0.5
"""Of the memory and of the requests that a router takes; the rest is for others, whatever one workspace does."""
PACE_PERIOD_S = 10.0
"""How far back it is looked how fast requests end."""
USUAL_PAUSE_S, LONGEST_PAUSE_S = 5, 60


@dataclass(slots=True)
class _Pace:
    """How many requests had been answered at a moment, and at one before it."""

    at_s: float
    answered: int
    earlier_at_s: float
    earlier_answered: int


@dataclass(slots=True)
class _Held:
    """What a workspace has under way: requests that were let through and have not ended."""

    requests: int = 0
    bodies_bytes: int = 0


class Queues:
    """Turns away what is one too many; what is counted anyway is all that it needs to know."""

    def __init__(self, figures: Figures):
        self._figures = figures
        self._paces: dict[str, _Pace] = {}
        self._held: dict[str, _Held] = {}
        """By workspace."""
        self._bodies_bytes = 0
        """Of all of them."""

    def admit(self, route: Route, table: RoutingTable, body_bytes: int) -> None:
        """Let a request wait that has been counted already. Raises QueueFull, which says when to try again."""
        room = route.room(table.routers)
        under_way = self._figures.of(route.endpoint_id).running  # with this one
        if room is not None and under_way > room:
            raise QueueFull(
                f"Endpoint {route.endpoint_id} has as many requests waiting as it may; try again later.",
                retry_after_s=self._pause_s(route, table, under_way),
            )
        self._require_room(route.workspace, body_bytes)

    def _require_room(self, workspace: str, body_bytes: int) -> None:
        if self._held.get(workspace, _Held()).requests >= MAX_REQUESTS * WORKSPACE_SHARE:
            raise QueueFull("This workspace has as many requests under way at this router as it may; try again later.")
        self._require_memory(workspace, body_bytes)

    def _require_memory(self, workspace: str, body_bytes: int) -> None:
        held = self._held.get(workspace, _Held())
        if held.bodies_bytes + body_bytes > BODIES_LIMIT_BYTES * WORKSPACE_SHARE:
            raise QueueFull("The requests of this workspace take as much memory as they may; try again later.")
        if self._bodies_bytes + body_bytes > BODIES_LIMIT_BYTES:
            raise QueueFull("The requests at this router take as much memory as they may; try again later.")

    @contextmanager
    def receiving(self, workspace: str) -> Iterator[Callable[[int], None]]:
        """Count a request whose body comes, which may take a minute; it gives what is to be told of each part's bytes.

        Only what has come takes memory: whoever announces much and sends nothing locks nobody out.
        Both raise QueueFull.
        """
        self._require_room(workspace, 0)
        with self._counted(workspace, 0):
            held, come_bytes = self._held[workspace], 0

            def arrived(part_bytes: int) -> None:
                nonlocal come_bytes
                self._require_memory(workspace, part_bytes)
                come_bytes += part_bytes
                held.bodies_bytes += part_bytes
                self._bodies_bytes += part_bytes

            try:
                yield arrived
            finally:
                held.bodies_bytes -= come_bytes
                self._bodies_bytes -= come_bytes

    def held(self, route: Route, body_bytes: int) -> AbstractContextManager[None]:
        """Count a request that was let through, until it has ended."""
        return self._counted(route.workspace, body_bytes)

    @contextmanager
    def _counted(self, workspace: str, body_bytes: int) -> Iterator[None]:
        held = self._held.setdefault(workspace, _Held())
        held.requests += 1
        held.bodies_bytes += body_bytes
        self._bodies_bytes += body_bytes
        try:
            yield
        finally:
            held.requests -= 1
            held.bodies_bytes -= body_bytes
            self._bodies_bytes -= body_bytes
            if not held.requests:
                del self._held[workspace]

    def _pause_s(self, route: Route, table: RoutingTable, under_way: int) -> int:
        """Until as many requests have been answered as are under way now, at the pace of late."""
        if route.running_units == 0:
            return come_back_after_s(route.wake.left_s(route.phase) if route.wake else None)
        now, answered = self._figures.clock(), self._figures.of(route.endpoint_id).requests["2xx"]
        pace = self._paces.get(route.endpoint_id)
        if pace is None:
            self._paces = {name: pace for name, pace in self._paces.items() if name in table.routes}
            pace = self._paces[route.endpoint_id] = _Pace(now, answered, now, answered)
        elif now - pace.at_s >= PACE_PERIOD_S:
            pace.earlier_at_s, pace.earlier_answered, pace.at_s, pace.answered = pace.at_s, pace.answered, now, answered
        ended, during_s = answered - pace.earlier_answered, now - pace.earlier_at_s
        if ended <= 0 or during_s <= 0:
            return USUAL_PAUSE_S
        return min(LONGEST_PAUSE_S, max(1, math.ceil(under_way * during_s / ended)))
