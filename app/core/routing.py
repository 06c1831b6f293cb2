"""The routing table: all a router knows, immutable and numbered."""

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property

from pydantic import BaseModel, ConfigDict

from app.core.chat_terms import ChatTerms
from app.core.errors import NotFound, Unavailable
from app.core.key_limits import NO_LIMITS, KeyLimits
from app.core.keys import not_valid
from app.core.records import EndpointState, Role
from app.core.wakes import WakeEstimate, come_back_after_s


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Target(_Frozen):
    """One revision that takes traffic."""

    revision: str
    application: str
    weight: int = 100


class Route(_Frozen):
    """How to reach an endpoint; no target while none can serve."""

    endpoint_id: str
    workspace: str
    name: str
    model: str = ""
    """By ID or name, as the endpoint's wish has it."""
    precision: str = ""
    state: EndpointState
    reason: str = ""
    created_at: datetime
    targets: tuple[Target, ...] = ()
    allowed_networks: tuple[str, ...] = ()
    """Networks (CIDR) of the clients that may call it; none: from everywhere."""
    qps: float | None = None
    """Requests a second that it takes from all routers together; None: no such limit."""
    running_units: int = 1
    """None: a request wakes it, or waits for the unit that replaces a lost one."""
    phase: str = ""
    """What the unit does that starts while none runs."""
    wake: WakeEstimate | None = None
    """How long it takes to start a unit; None: nobody knows."""
    concurrency: int = 0
    """Requests that the running units work on at once."""
    max_waiting: int | None = None
    """Further ones that wait for them, at all routers together; None: any number."""
    chat: ChatTerms = ChatTerms()
    """What it adds to requests, and what they may ask for."""

    def choose(self, draw: float) -> Target:
        """The target that takes this request; `draw` is uniform in [0, 1). Only while there is one."""
        mark = draw * sum(target.weight for target in self.targets)
        for target in self.targets:
            mark -= target.weight
            if mark < 0:
                return target
        return self.targets[-1]

    def require_target(self) -> None:
        """Raises Unavailable while no revision serves."""
        if not self.targets:
            left_s = self.wake.left_s(self.phase) if self.state == "scheduling" and self.wake else None
            raise Unavailable(
                f"Endpoint {self.endpoint_id} is {self.state}: {self.reason or 'no unit is ready'}.",
                retry_after_s=None if left_s is None else come_back_after_s(left_s),
            )

    def leads_to(self, application: str) -> bool:
        """Whether this application takes requests."""
        return any(target.application == application for target in self.targets)

    def room(self, routers: int) -> int | None:
        """Requests that each of so many routers may have under way at once; None: any number."""
        if self.max_waiting is None:
            return None
        return -(-(self.concurrency + self.max_waiting) // max(1, routers))


class Grant(_Frozen):
    """What the holder of a key may do."""

    workspace: str
    role: Role
    key_id: str = ""
    """Of the key itself, which no router knows."""
    endpoints: tuple[str, ...] | None = None
    limits: KeyLimits = NO_LIMITS
    expires_at: datetime | None = None


class RoutingTable(_Frozen):
    """Routes by endpoint ID and grants by key hash."""

    number: int = 0
    routers: int = 1
    """Living routers, which share each endpoint's limits."""
    routes: Mapping[str, Route] = {}
    grants: Mapping[str, Grant] = {}

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], list[Route]]:
        names: dict[tuple[str, str], list[Route]] = {}
        for route in self.routes.values():
            names.setdefault((route.workspace, route.name), []).append(route)
        return names

    def grant_for(self, key_hash: str, now: datetime) -> Grant:
        """Who calls with this key. Raises Unauthorized: an unknown, revoked or expired one."""
        # Found by its hash alone: how long that takes tells nothing about the keys there are.
        grant = self.grants.get(key_hash)
        if grant is None or (grant.expires_at is not None and grant.expires_at <= now):
            raise not_valid()
        return grant

    def visible_to(self, grant: Grant) -> list[Route]:
        """The endpoints this grant may call, oldest first."""
        seen = [route for route in self.routes.values() if _allows(grant, route)]
        return sorted(seen, key=lambda route: (route.created_at, route.endpoint_id))

    def route_for(self, model: str, grant: Grant) -> Route:
        """The route of an endpoint by its ID, or by its name where that is unique.

        Raises NotFound alike for what does not exist and for what this caller may not see.
        """
        route = self.routes.get(model)
        if route is None:
            named = self._by_name.get((grant.workspace, model), [])
            route = named[0] if len(named) == 1 else None
        if route is None or not _allows(grant, route):
            raise NotFound("No such endpoint: 'model' takes an endpoint ID like ep-... or its name.", "model")
        return route


def _allows(grant: Grant, route: Route) -> bool:
    return route.workspace == grant.workspace and (grant.endpoints is None or route.endpoint_id in grant.endpoints)
