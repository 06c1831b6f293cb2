"""The routing table: all a router knows, immutable and numbered."""

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property

from pydantic import BaseModel, ConfigDict

from app.core.errors import NotFound, Unavailable
from app.core.keys import not_valid
from app.core.records import EndpointState, Role


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
    state: EndpointState
    reason: str = ""
    created_at: datetime
    targets: tuple[Target, ...] = ()
    allowed_networks: tuple[str, ...] = ()
    """Networks (CIDR) of the clients that may call it; none: from everywhere."""
    qps: float | None = None
    """Requests a second that it takes from all routers together; None: no such limit."""

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
            raise Unavailable(f"Endpoint {self.endpoint_id} is {self.state}: {self.reason or 'no unit is ready'}.")


class Grant(_Frozen):
    """What the holder of a key may do."""

    workspace: str
    role: Role
    endpoints: tuple[str, ...] | None = None
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
