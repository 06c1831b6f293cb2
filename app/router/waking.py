"""Endpoints that are kept waking while requests wait for a unit.

Serve starts a unit because a call waits in a handle. So a request goes into the handle at once, asleep or awake, and a
call of the router's own goes along, which stays when the caller leaves.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from app.core.routing import Route, RoutingTable
from app.core.wakes import LONGEST_WAIT_S, Stage, stage_of
from app.router.directory import Directory

WOKEN_TRUSTED_S = 10.0
"""For so long after a unit has answered a table that does not know it yet may come."""
RETRY_S = 1.0
"""After a call to wake an endpoint that failed."""

log = logging.getLogger("ray.serve")


class Waiter(Protocol):
    """A request that waits, see app/router/hold.py."""

    endpoint_id: str

    def nudge(self) -> None:
        """Something is new of the endpoint."""
        ...


class _WakeCall(NamedTuple):
    application: str
    task: asyncio.Task[None]


class _Woken(NamedTuple):
    application: str
    at: float


class Waking:
    """All requests of this router that wait for first bytes, by endpoint."""

    def __init__(self, directory: Directory, clock: Callable[[], float] = time.monotonic):
        self.directory = directory
        self.clock = clock
        self._waiting: dict[str, set[Waiter]] = {}
        self._calls: dict[str, _WakeCall] = {}
        """Endpoint ID -> the call that keeps it waking."""
        self._stages: dict[str, tuple[Stage, float]] = {}
        """Of endpoints that are kept waking: the stage of the start, and since when it is known."""
        self._woken: dict[str, _Woken] = {}
        """Endpoint ID -> the unit that has answered such a call, until a table knows more of the endpoint."""
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
        woken = self._woken.get(route.endpoint_id)
        return woken is not None and route.leads_to(woken.application)

    def keep_waking(self, route: Route) -> None:
        """See to it that a call of our own waits for a unit, whoever leaves."""
        if route.targets and route.endpoint_id not in self._calls:
            application = route.targets[0].application
            self._stages[route.endpoint_id] = (stage_of(route.phase), self.clock())
            task = asyncio.create_task(self._call(route.endpoint_id, application))
            self._calls[route.endpoint_id] = _WakeCall(application, task)
            task.add_done_callback(lambda _: self._call_ended(route.endpoint_id))

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
            async with asyncio.timeout(LONGEST_WAIT_S):
                await response
        except (asyncio.CancelledError, Exception) as error:  # the requests that wait are told by their own calls
            if response is not None:
                response.cancel()  # Serve never gives up a call that waits, not even of a deployment that is gone
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            log.warning("endpoint %s could not be woken (%s)", endpoint_id, type(error).__name__)
            await asyncio.sleep(RETRY_S)
        else:
            route = self.directory.table.routes.get(endpoint_id)
            if route and not route.running_units:
                self._woken[endpoint_id] = _Woken(application, self.clock())

    def _call_ended(self, endpoint_id: str) -> None:
        del self._calls[endpoint_id]
        self._stages.pop(endpoint_id, None)
        self._nudge(endpoint_id)  # whoever still waits for a unit begins another

    def _table_changed(self, before: RoutingTable, after: RoutingTable) -> None:
        now = self.clock()
        for endpoint_id in {*self._waiting, *self._calls, *self._woken}:
            route = after.routes.get(endpoint_id)
            if route == before.routes.get(endpoint_id):
                continue
            woken = self._woken.get(endpoint_id)
            if woken and (route is None or route.running_units or now - woken.at >= WOKEN_TRUSTED_S):
                del self._woken[endpoint_id]
            call = self._calls.get(endpoint_id)
            if call and not (route and route.leads_to(call.application)):
                call.task.cancel()  # its start failed, or another revision is to be woken
            elif endpoint_id in self._stages and route and stage_of(route.phase) != self._stages[endpoint_id][0]:
                self._stages[endpoint_id] = (stage_of(route.phase), now)
            self._nudge(endpoint_id)
        for endpoint_id, route in after.routes.items():
            if route.state == "sleeping" and endpoint_id not in self._waiting and endpoint_id not in self._calls:
                for target in route.targets:
                    self.directory.release(target.application)

    def _nudge(self, endpoint_id: str) -> None:
        for waiter in self._waiting.get(endpoint_id, ()):
            waiter.nudge()
