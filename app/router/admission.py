"""Who may call what, and how often: everything that is decided before a unit hears of a request."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from starlette.types import Message, Receive, Scope

from app.core.errors import Forbidden, PlatformError
from app.core.keys import bearer_hash
from app.core.networks import contains
from app.core.routing import Grant, Route, RoutingTable
from app.router.clients import client_of
from app.router.figures import Figures
from app.router.limits import Claim, Limits
from app.router.queues import Queues
from app.web import answer_with, header, read_body


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

        While it comes, the workspace holds the memory that what has come takes.
        """
        with self._queues.receiving(grant.workspace) as arrived:

            async def receive_counted() -> Message:
                message = await receive()
                arrived(len(message.get("body", b"")))
                return message

            return await read_body(scope, receive_counted, limit_bytes)

    def require_together(
        self, scope: Scope, grant: Grant, route: Route, table: RoutingTable, requests: int, param: str
    ) -> None:
        """Whether so many requests of one call may come at once; takes nothing. Raises as Claim does, and Forbidden."""
        self._require_network(scope, route)
        claim = self._limits.of(grant, route, table, 0)
        try:
            claim.require_together(requests, param)
        except PlatformError:
            answer_with(scope, claim.headers())
            raise

    def _require_network(self, scope: Scope, route: Route) -> None:
        if route.allowed_networks and not contains(route.allowed_networks, client_of(scope, self._trusted_proxies)):
            raise Forbidden(
                f"Endpoint {route.endpoint_id} does not take requests from your network.", code="network_not_allowed"
            )

    @contextmanager
    def admitted(
        self, scope: Scope, grant: Grant, route: Route, table: RoutingTable, body_bytes: int, tokens: int
    ) -> Iterator[Claim]:
        """Let a request to this endpoint through: a context that lasts as long as the request.

        `tokens`: what it is reckoned to need, until it is known and the claim is settled. One that is refused takes
        nothing of any limit; the answer tells in its headers how the limits stand, either way.
        Raises Forbidden from outside the endpoint's networks, Unavailable while it has no revision to call, QueueFull
        where too many wait, TooManyRequests above a limit of the endpoint or of the key.
        """
        self._require_network(scope, route)
        route.require_target()
        claim = self._limits.of(grant, route, table, tokens)
        try:
            self._queues.admit(route, table, body_bytes)
            claim.take()
        finally:
            answer_with(scope, claim.headers())
        with self._queues.held(route, body_bytes), claim:
            yield claim
