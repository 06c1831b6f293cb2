import pytest
from pydantic import TypeAdapter, ValidationError

from app.core.networks import Network, client_address, contains

PROXIES = ("10.0.0.0/8", "fd00::/8")


@pytest.mark.parametrize(
    ("network", "address", "inside"),
    [
        ("10.0.0.0/8", "10.255.255.255", True),
        ("10.0.0.0/8", "11.0.0.0", False),
        ("192.0.2.7/32", "192.0.2.7", True),
        ("192.0.2.7/32", "192.0.2.8", False),
        ("0.0.0.0/0", "203.0.113.9", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("10.0.0.0/8", "::ffff:10.0.0.1", True),
        ("10.0.0.0/8", "::ffff:11.0.0.1", False),
        ("0.0.0.0/0", "", False),
        ("0.0.0.0/0", "unix:/run/socket", False),
        ("0.0.0.0/0", "10.0.0.1:8080", False),
        ("0.0.0.0/0", "010.0.0.1", False),
    ],
)
def test_an_address_lies_in_a_network_or_not(network: str, address: str, inside: bool) -> None:
    assert contains([network], address) is inside
    assert contains([], address) is False


def test_one_of_several_networks_is_enough() -> None:
    assert contains(["192.0.2.0/24", "2001:db8::/32", "10.0.0.0/8"], "10.1.2.3")


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "192.0.2.1", "203.0.113.9"),  # no proxy of ours: it may say what it likes
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", " , ", "10.0.0.1"),
        ("10.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", "192.0.2.66, 192.0.2.1", "192.0.2.1"),  # the client made up the first one
        ("10.0.0.1", "192.0.2.66, 192.0.2.1, 10.0.0.2", "192.0.2.1"),  # through two proxies
        ("fd00::1", "10.9.9.9,2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),  # a client within the proxies' own network
        ("10.0.0.1", "192.0.2.1, unknown", "unknown"),  # which lies in no network
        ("", "192.0.2.1", ""),
    ],
)
def test_who_the_client_is(peer: str, forwarded_for: str | None, client: str) -> None:
    assert client_address(peer, forwarded_for, PROXIES) == client
    assert client_address(peer, forwarded_for, ()) == peer


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "example.org", "", "10.0.0.0/8 "])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="a network as CIDR, such as"):
        TypeAdapter(Network).validate_python(text)


def test_a_single_address_is_a_network_too() -> None:
    assert TypeAdapter(Network).validate_python("192.0.2.7") == "192.0.2.7/32"
