"""The routing table: all a router knows, immutable and numbered."""

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property

from pydantic import BaseModel, ConfigDict

from app.core.errors import NotFound, Unauthorized, Unavailable
from app.core.keys import hash_key, well_formed
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


class Grant(_Frozen):
    """What the holder of a key may do."""

    workspace: str
    role: Role
    endpoints: tuple[str, ...] | None = None
    expires_at: datetime | None = None


class RoutingTable(_Frozen):
    """Routes by endpoint ID and grants by key hash."""

    number: int = 0
    routes: Mapping[str, Route] = {}
    grants: Mapping[str, Grant] = {}

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], list[Route]]:
        names: dict[tuple[str, str], list[Route]] = {}
        for route in self.routes.values():
            names.setdefault((route.workspace, route.name), []).append(route)
        return names

    def grant_for(self, authorization: str | None, now: datetime) -> Grant:
        """Who calls, from the Authorization header.

        Raises Unauthorized: no bearer key, a malformed, unknown, revoked or expired one.
        """
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthorized("No API key: send the header 'Authorization: Bearer mu-...'.", code="missing_api_key")
        key = key.strip()
        grant = self.grants.get(hash_key(key)) if well_formed(key) else None
        if grant is None or (grant.expires_at is not None and grant.expires_at <= now):
            raise Unauthorized("This API key is not valid: unknown, revoked or expired.")
        return grant

    def visible_to(self, grant: Grant) -> list[Route]:
        """The endpoints this grant may call, oldest first."""
        seen = [route for route in self.routes.values() if _allows(grant, route)]
        return sorted(seen, key=lambda route: (route.created_at, route.endpoint_id))

    def route_for(self, model: str, grant: Grant) -> Route:
        """The route of an endpoint by its ID, or by its name where that is unique.

        Raises NotFound alike for what does not exist and for what this caller may not see,
        Unavailable while no revision serves.
        """
        route = self.routes.get(model)
        if route is None:
            named = self._by_name.get((grant.workspace, model), [])
            route = named[0] if len(named) == 1 else None
        if route is None or not _allows(grant, route):
            raise NotFound("No such endpoint: 'model' takes an endpoint ID like ep-... or its name.", "model")
        if not route.targets:
            raise Unavailable(f"Endpoint {route.endpoint_id} is {route.state}: {route.reason or 'no unit is ready'}.")
        return route


def _allows(grant: Grant, route: Route) -> bool:
    return route.workspace == grant.workspace and (grant.endpoints is None or route.endpoint_id in grant.endpoints)
