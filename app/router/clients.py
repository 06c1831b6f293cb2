"""Where a request comes from."""

from collections.abc import Iterable

from starlette.types import Scope

from app.core.networks import client_address


def client_of(scope: Scope, trusted_proxies: Iterable[str]) -> str:
    """The client's address: the peer's, or what trusted proxies say of it; empty when there is no address."""
    peer = scope.get("client")
    # A proxy may add a header of its own instead of to the client's: all of them count, in their order.
    forwarded_for = ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for")
    return client_address(peer[0] if peer else "", forwarded_for, trusted_proxies)
