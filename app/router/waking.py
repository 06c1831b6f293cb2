"""Endpoints that are kept waking while requests wait for a unit.

Serve starts a unit because a call waits in a handle. So a request goes into the handle at once, asleep or awake, and a
call of the router's own goes along, which stays when the caller leaves.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from app.core.routing import Route, RoutingTable
from app.core.wakes import Stage, stage_of
from app.router.directory import Directory

WOKEN_TRUSTED_S = 10.0
"""How long a unit that has answered counts although the routing table has not heard of it."""
RETRY_S = 1.0
"""After a call to wake an endpoint that failed."""

log = logging.getLogger("ray.serve")


class Waiter(Protocol):
    """A request that waits, see app/router/hold.py."""

    endpoint_id: str

    def nudge(self) -> None:
        """Something is new of the endpoint."""
        ...


class Waking:
    """All requests of this router that wait for first bytes, by endpoint."""

    def __init__(self, directory: Directory, clock: Callable[[], float] = time.monotonic):
        self.directory = directory
        self.clock = clock
        self._waiting: dict[str, set[Waiter]] = {}
        self._calls: dict[str, asyncio.Task[None]] = {}
        """Endpoint ID -> the call that keeps it waking."""
        self._stages: dict[str, tuple[Stage, float]] = {}
        """Of endpoints that are kept waking: the stage of the start, and since when it is known."""
        self._woken_until: dict[str, float] = {}
        directory.on_change(self._table_changed)

    def add(self, waiter: Waiter) -> None:
        """From now on it hears of what happens to its endpoint."""
        self._waiting.setdefault(waiter.endpoint_id, set()).add(waiter)

    def discard(self, waiter: Waiter) -> None:
        """It waits no more."""
        others = self._waiting[waiter.endpoint_id]
        others.discard(waiter)
        if not others:
            del self._waiting[waiter.endpoint_id]

    def is_awake(self, route: Route) -> bool:
        """Whether a unit runs, as far as is known."""
        if route.running_units:
            return bool(route.targets)
        return self._woken_until.get(route.endpoint_id, -math.inf) > self.clock()

    def keep_waking(self, route: Route) -> None:
        """See to it that a call of our own waits for a unit, whoever leaves."""
        if route.targets and route.endpoint_id not in self._calls:
            self._stages[route.endpoint_id] = (stage_of(route.phase), self.clock())
            call = asyncio.create_task(self._call(route.endpoint_id, route.targets[0].application))
            self._calls[route.endpoint_id] = call
            call.add_done_callback(lambda _: self._call_ended(route.endpoint_id))

    def left_s(self, route: Route) -> float | None:
        """Until a unit runs; None: nobody knows."""
        if route.wake is None:
            return None
        now = self.clock()
        stage, since = self._stages.get(route.endpoint_id, (stage_of(route.phase), now))
        return route.wake.left_s(route.phase, now - since if stage == stage_of(route.phase) else 0.0)

    async def _call(self, endpoint_id: str, application: str) -> None:
        response: Any = None
        try:
            response = self.directory.handle(application).wake.remote()
            await response
            self._woken_until[endpoint_id] = self.clock() + WOKEN_TRUSTED_S
        except (asyncio.CancelledError, Exception) as error:  # the requests that wait are told by their own calls
            task = asyncio.current_task()
            if task and task.cancelling():
                if response is not None:
                    response.cancel()
                raise
            log.warning("endpoint %s could not be woken (%s)", endpoint_id, type(error).__name__)
            await asyncio.sleep(RETRY_S)

    def _call_ended(self, endpoint_id: str) -> None:
        del self._calls[endpoint_id]
        self._stages.pop(endpoint_id, None)
        self._nudge(endpoint_id)  # whoever still waits for a unit begins another

    def _table_changed(self, before: RoutingTable, after: RoutingTable) -> None:
        now = self.clock()
        self._woken_until = {name: until for name, until in self._woken_until.items() if until > now}
        for endpoint_id in {*self._waiting, *self._calls}:
            route = after.routes.get(endpoint_id)
            if route == before.routes.get(endpoint_id):
                continue
            if endpoint_id in self._calls and (route is None or not route.targets):
                self._calls[endpoint_id].cancel()  # its start failed, or it is to be another revision's
            elif endpoint_id in self._stages and route and stage_of(route.phase) != self._stages[endpoint_id][0]:
                self._stages[endpoint_id] = (stage_of(route.phase), now)
            self._nudge(endpoint_id)

    def _nudge(self, endpoint_id: str) -> None:
        for waiter in self._waiting.get(endpoint_id, ()):
            waiter.nudge()
