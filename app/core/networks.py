"""Networks of clients: who may call, and whose word on the client's address counts."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated

from pydantic import AfterValidator


def _check(network: str) -> str:
    try:
        return str(ip_network(network))
    except ValueError:
        raise ValueError("a network as CIDR, such as 10.0.0.0/8 or 2001:db8::/32, without host bits") from None


Network = Annotated[str, AfterValidator(_check)]


def contains(networks: Iterable[str], address: str) -> bool:
    """Whether the address lies in one of the networks; text that is no address lies in none.

    An IPv4 address written as IPv6 (::ffff:10.0.0.1) counts as what it is.
    """
    try:
        peer = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    plain = getattr(peer, "ipv4_mapped", None) or peer
    return any(plain in _parsed(network) for network in networks)


@lru_cache(4096)
def _parsed(network: str) -> IPv4Network | IPv6Network:
    return ip_network(network)


def client_address(peer: str, forwarded_for: str | None, trusted_proxies: Iterable[str]) -> str:
    """Who the client is: the peer, unless that is a trusted proxy; then the last in X-Forwarded-For that is none.

    Only the part that trusted proxies wrote counts: what stands left of it, the client may have made up.
    """
    trusted = tuple(trusted_proxies)
    client = peer
    hops = [hop.strip() for hop in (forwarded_for or "").split(",") if hop.strip()]
    while hops and contains(trusted, client):
        client = hops.pop()
    return client
