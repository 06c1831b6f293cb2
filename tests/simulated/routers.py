"""A router in virtual time: the real bound of its queue and the real estimates, over handles to simulated units."""

import math
from collections.abc import Callable

from app.core.errors import Asleep, PlatformError, QueueFull
from app.core.routing import Route, RoutingTable
from app.core.wakes import Stage, come_back_after_s, stage_of
from app.router.call import RETRY_PAUSE_S
from app.router.figures import CountedRequest, Figures
from app.router.queues import Queues
from app.router.waking import WOKEN_TRUSTED_S
from tests.simulated.events import Events
from tests.simulated.serve import BackPressure, Handle, Serve
from tests.simulated.units import Request

WAKE = -1
"""The number of a router's own call that keeps an endpoint waking."""


class Router:
    """Decides by the table that the control plane published last, as app/router does, about one endpoint."""

    def __init__(self, events: Events, name: str, endpoint_id: str, serve: Serve):
        self.name = name
        self.table = RoutingTable()
        self._events = events
        self._endpoint_id = endpoint_id
        self._figures = Figures(name, events.clock, events.clock)
        self._queues = Queues(self._figures)
        self._handle: Handle = serve.handle(self._lost)
        self._counted: dict[Request, tuple[CountedRequest, Callable[[Request, PlatformError | None], None]]] = {}
        self._wakes = False
        self._woken_until_s = -math.inf
        self._stage: tuple[Stage, float] = ("place", 0.0)

    @property
    def _route(self) -> Route:
        return self.table.routes[self._endpoint_id]

    def take(self, table: RoutingTable) -> None:
        """There is a new table."""
        self.table = table
        stage = stage_of(self._route.phase)
        if stage != self._stage[0]:
            self._stage = (stage, self._events.now_s)

    def ask(self, request: Request, ended: Callable[[Request, PlatformError | None], None]) -> None:
        """A request comes; `ended` hears of its whole answer, or of the error that it got instead."""
        request.asked_at_s.append(self._events.now_s)
        counted = self._figures.request()
        counted.__enter__()
        counted.concerns(self._endpoint_id)
        self._counted[request] = counted, ended
        route = self._route
        try:
            route.require_target()
            self._queues.admit(route, self.table, request.body_bytes)
            if not self._is_awake(route):
                request.woke = True
                self._keep_waking(route)
                if not request.waits:
                    raise Asleep("It is waking.", retry_after_s=come_back_after_s(self._left_s(route)))
            self._put(request)
        except PlatformError as error:
            self._end(request, error)

    def _put(self, request: Request) -> None:
        try:
            self._handle.put(request, self._end)
        except BackPressure:
            raise QueueFull("Every unit of this endpoint is busy and its queue is full.") from None

    def _lost(self, request: Request) -> None:
        """Its unit was gone already: it goes in again after a pause."""
        self._events.after(RETRY_PAUSE_S, self._put_again, request)

    def _put_again(self, request: Request) -> None:
        try:
            self._put(request)
        except QueueFull as error:
            self._end(request, error)

    def _end(self, request: Request, error: PlatformError | None = None) -> None:
        if request.number == WAKE:
            self._wakes, self._woken_until_s = False, self._events.now_s + WOKEN_TRUSTED_S
            return
        counted, ended = self._counted.pop(request)
        if error is None:
            counted.answered(200, streamed=False)
        counted.__exit__(type(error) if error else None, error, None)
        ended(request, error)

    def _is_awake(self, route: Route) -> bool:
        return route.running_units > 0 or self._woken_until_s > self._events.now_s

    def _keep_waking(self, route: Route) -> None:
        if not self._wakes:
            self._wakes, self._stage = True, (stage_of(route.phase), self._events.now_s)
            self._put(Request(WAKE, self._events.now_s, tokens=0, body_bytes=0))

    def _left_s(self, route: Route) -> float | None:
        stage, since_s = self._stage
        in_stage_s = self._events.now_s - since_s if stage == stage_of(route.phase) else 0.0
        return route.wake.left_s(route.phase, in_stage_s) if route.wake else None
