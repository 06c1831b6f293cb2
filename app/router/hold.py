"""A request until its first bytes: it may wait for a unit, and nothing is looked at again before it has waited a while.

Or before the routing table says something new of its endpoint.
"""

import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from starlette.types import Scope

from app.core.errors import Asleep, DeadlineExceeded, Unavailable, UnitGone
from app.core.routing import Route, Target
from app.core.wakes import (
    DEFAULT_WISH,
    STILL_WAITING,
    TIMEOUT_HEADER,
    WAKE_HEADER,
    WakeWish,
    come_back_after_s,
    heartbeat,
    wish_of,
)
from app.router.handles import is_assigned
from app.router.stream import Stream
from app.router.waking import Waking
from app.web import header

HEARTBEAT_S = 5.0
_MARK = WAKE_HEADER.encode()
_HOPELESS = ("abnormal", "stopped", "deleting")
"""States in which an endpoint that has no revision to call will not get one by itself."""

Beat = Callable[[bytes], Awaitable[None]]


def wish_in(scope: Scope) -> WakeWish:
    """What the caller wants should the endpoint sleep. Raises InvalidField."""
    if not any(name.startswith(_MARK) for name, _ in scope["headers"]):
        return DEFAULT_WISH
    return wish_of(header(scope, WAKE_HEADER), header(scope, TIMEOUT_HEADER))


class Hold:
    """One request until its first bytes: where it goes, how long it waits, and what its caller hears meanwhile."""

    def __init__(self, waking: Waking, route: Route, wish: WakeWish, limit_s: float, waits_for: str):
        """`limit_s`: how long a unit that runs may take for the first bytes, which are called `waits_for`."""
        self.endpoint_id = route.endpoint_id
        self.target: Target | None = route.choose(random.random())
        self._waking = waking
        self._wish = wish
        self._limit_s = limit_s
        self._waits_for = waits_for
        self.beat: Beat | None = None
        """Sends a stream's comments."""
        self._beaten = False
        self._stream: Stream | None = None
        self._response: Any = None
        """The call that has gone into a handle."""
        self._since = waking.clock()
        self._asleep = not waking.is_awake(route)
        """No unit runs, so none can have it."""
        self._roused = False
        self._until = self._since + (wish.timeout_s if self._asleep else limit_s)
        self._beat_at = self._since + HEARTBEAT_S

    def __enter__(self) -> "Hold":
        self._waking.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._waking.discard(self)

    @property
    def revision(self) -> str:
        """Which the answer comes from."""
        return self.target.revision if self.target else ""

    def begin(self) -> None:
        """It is about to go into a handle, for the first time or again. Raises as `wait` does."""
        self._response = None
        self._follow(self._waking.clock())

    def call(self, *arguments: Any) -> Any:
        """Go into the handle of the target's units, while there is a target."""
        assert self.target
        self._response = self._waking.directory.handle(self.target.application).chat.remote(*arguments)
        return self._response

    async def wait(self, stream: Stream) -> bool:
        """Whether something has come. Else have a look around, and call again.

        Raises PlatformError once there is no use in waiting, UnitGone where the request has to go elsewhere, and Asleep
        for a caller who does not want to wait for a unit.
        """
        self._stream = stream
        if await stream.ready(max(0.0, min(self._until, self._beat_at) - self._waking.clock())):
            return True
        await self._look()
        return False

    def nudge(self) -> None:
        """Something is new of the endpoint."""
        if self._stream is not None:
            self._stream.nudge()

    async def _look(self) -> None:
        now = self._waking.clock()
        self._follow(now)
        if now >= self._until:
            what = f"endpoint {self.endpoint_id} to wake" if self._asleep else self._waits_for
            raise DeadlineExceeded(f"Waited {self._wish.timeout_s if self._asleep else self._limit_s:g} s for {what}.")
        if now >= self._beat_at:
            self._beat_at = now + HEARTBEAT_S
            if self.beat and (self._asleep or self._beaten):
                self._beaten = True
                await self.beat(self._comment())

    def _follow(self, now: float) -> None:
        """Go by the routing table until a unit has taken the request, which is its own business from then on."""
        if self._response is None or not is_assigned(self._response):
            route = self._route()
            self._choose(route)
            if not self._waking.is_awake(route):
                self._sleeps(route)
                return
        if self._asleep and not self._roused:
            self._roused, self._until = True, now + self._limit_s
        self._asleep = False

    def _route(self) -> Route:
        """As the endpoint is now. Raises Unavailable where no unit will come."""
        route = self._waking.directory.table.routes.get(self.endpoint_id)
        if route is None:
            raise Unavailable(f"Endpoint {self.endpoint_id} is being deleted.")
        if not route.targets and route.state in _HOPELESS:
            raise Unavailable(f"Endpoint {self.endpoint_id} is {route.state}: {route.reason or 'it cannot serve'}.")
        return route

    def _choose(self, route: Route) -> None:
        """Go where the endpoint's requests go now. Raises UnitGone where it waits in another revision's handle."""
        if self.target and route.leads_to(self.target.application):
            return
        self.target = route.choose(random.random()) if route.targets else None
        if self._response is not None:
            raise UnitGone("The endpoint changed while the request waited.")

    def _sleeps(self, route: Route) -> None:
        if not self._asleep and not self._roused:  # since the table was made it fell asleep, or its units were lost
            self._until = max(self._until, self._since + self._wish.timeout_s)
        self._asleep = True
        self._waking.keep_waking(route)
        if not self._wish.waits:
            left_s = self._waking.left_s(route)
            after_s = come_back_after_s(left_s)
            when = "soon" if left_s is None else f"in about {after_s} s"
            raise Asleep(f"Endpoint {self.endpoint_id} is waking; a unit runs {when}.", retry_after_s=after_s)

    def _comment(self) -> bytes:
        route = self._waking.directory.table.routes.get(self.endpoint_id)
        return heartbeat(route.phase, self._waking.left_s(route)) if self._asleep and route else STILL_WAITING
