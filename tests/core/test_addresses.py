"""By which address callers are told to reach the platform."""

import pytest

from app.core.addresses import base_url

OURS = ("10.0.0.7", 8123)


@pytest.mark.parametrize(
    ("host", "scheme", "expected"),
    [
        ("models.example.com", None, "http://models.example.com"),
        ("models.example.com", "https", "https://models.example.com"),
        ("models.example.com", "gopher", "http://models.example.com"),
        ("127.0.0.1:8000", "http", "http://127.0.0.1:8000"),
        ("[::1]:8000", None, "http://[::1]:8000"),
        (None, "https", "http://10.0.0.7:8123"),
    ],
)
def test_the_address_is_the_one_the_caller_used(host: str | None, scheme: str | None, expected: str) -> None:
    assert base_url(host, scheme, OURS) == expected


@pytest.mark.parametrize(
    "host", ["", 'a"; import os; os.system("x")', "a'b", "a b", "a/b", "a\n", "a:port", "-a", "a" * 300, "$(id)", "a,b"]
)
def test_what_is_no_host_gets_into_no_code(host: str) -> None:
    assert base_url(host, None, OURS) == "http://10.0.0.7:8123"


@pytest.mark.parametrize(
    ("listens_on", "expected"),
    [("0.0.0.0", "http://127.0.0.1:8123"), ("::", "http://127.0.0.1:8123"), ("::1", "http://[::1]:8123")],
)
def test_an_address_that_is_none_to_call_is_replaced(listens_on: str, expected: str) -> None:
    assert base_url(None, None, (listens_on, 8123)) == expected
