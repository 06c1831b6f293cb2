"""Who may call what, and how often: everything that is decided before a unit hears of a request."""

from collections.abc import Sequence
from datetime import UTC, datetime

from starlette.types import Receive, Scope

from app.core.errors import Forbidden
from app.core.keys import bearer_hash
from app.core.networks import contains
from app.core.routing import Grant, Route, RoutingTable
from app.router.clients import client_of
from app.router.figures import Figures
from app.router.limits import Limits
from app.router.queues import Queues
from app.web import header, read_body


class Admission:
    """Decides by one routing table at a time, and asks nobody."""

    def __init__(self, figures: Figures, queues: Queues, limits: Limits, trusted_proxies: Sequence[str]):
        self._figures = figures
        self._queues = queues
        self._limits = limits
        self._trusted_proxies = trusted_proxies

    def grant(self, scope: Scope, table: RoutingTable) -> Grant:
        """Who calls. Raises Unauthorized."""
        key_hash = bearer_hash(header(scope, "authorization"))
        grant = table.grant_for(key_hash, datetime.now(UTC))
        self._figures.key_used(key_hash)
        return grant

    async def body(self, scope: Scope, receive: Receive, grant: Grant, limit_bytes: int) -> bytes:
        """The body of the request of somebody who may call. Raises QueueFull, TooLarge and BadRequest.

        While it comes, the workspace holds the memory that it says it takes; if it says nothing, as much as it may.
        """
        declared = header(scope, "content-length")
        takes_bytes = int(declared) if declared and declared.isdigit() else limit_bytes
        with self._queues.receiving(grant.workspace, min(takes_bytes, limit_bytes)):
            return await read_body(scope, receive, limit_bytes)

    def admit(self, scope: Scope, route: Route, table: RoutingTable, body_bytes: int) -> None:
        """Let a request to this endpoint through.

        Raises Forbidden from outside its networks, Unavailable while it has no revision to call, QueueFull where too
        many wait, QpsExceeded above its limit.
        """
        if route.allowed_networks and not contains(route.allowed_networks, client_of(scope, self._trusted_proxies)):
            raise Forbidden(
                f"Endpoint {route.endpoint_id} does not take requests from your network.", code="network_not_allowed"
            )
        route.require_target()
        self._queues.admit(route, table, body_bytes)
        self._limits.admit(route, table)
