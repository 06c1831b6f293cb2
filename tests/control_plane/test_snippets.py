"""/v1/endpoints/{id}/snippet; tests/router/test_running_snippets.py runs the code."""

from collections.abc import Callable

import httpx
import pytest

from app.control_plane.platform import Platform
from app.control_plane.services.snippets import base_url
from app.settings import Settings
from tests.control_plane.platforms import ONE_DATABASE, by_name, spec


@pytest.fixture
def path(platform: Platform) -> str:
    platform.declarations.declare([spec("demo")])
    return f"/endpoints/{by_name(platform)['demo'].id}/snippet"


@ONE_DATABASE
async def test_a_snippet_names_the_endpoint_and_no_key(admin: httpx.AsyncClient, path: str) -> None:
    for client in ("openai", "ark", "curl", "vertex"):
        answer = await admin.get(f"{path}?client={client}", headers={"x-forwarded-host": "models.example.com:8443"})
        shown = answer.json()
        assert (answer.status_code, shown["object"], shown["client"]) == (200, "snippet", client)
        assert shown["language"] == ("shell" if client == "curl" else "python")
        assert path.split("/")[2] in shown["code"]
        assert "http://models.example.com:8443/" in shown["code"]
        assert "mu-" not in shown["code"]
        if shown["language"] == "python":
            compile(shown["code"], client, "exec")


@ONE_DATABASE
async def test_the_openai_client_is_the_usual_one(admin: httpx.AsyncClient, path: str) -> None:
    assert (await admin.get(path)).json()["client"] == "openai"
    wrong = await admin.get(f"{path}?client=fax")
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "client")


SETTINGS = Settings(http_host="10.0.0.7", http_port=8123)


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
    assert base_url(SETTINGS, host, scheme) == expected


@pytest.mark.parametrize(
    "host", ["", 'a"; import os; os.system("x")', "a'b", "a b", "a/b", "a\n", "a:port", "-a", "a" * 300, "$(id)", "a,b"]
)
def test_what_is_no_host_gets_into_no_code(host: str) -> None:
    assert base_url(SETTINGS, host, None) == "http://10.0.0.7:8123"


@pytest.mark.parametrize(
    ("http_host", "expected"),
    [("0.0.0.0", "http://127.0.0.1:8123"), ("::", "http://127.0.0.1:8123"), ("::1", "http://[::1]:8123")],
)
def test_an_address_that_is_none_to_call_is_replaced(http_host: str, expected: str) -> None:
    assert base_url(SETTINGS.model_copy(update={"http_host": http_host}), None, None) == expected


@ONE_DATABASE
async def test_an_unknown_endpoint_has_no_snippet(
    admin: httpx.AsyncClient, client_for: Callable[[str | None], httpx.AsyncClient]
) -> None:
    assert (await admin.get("/endpoints/ep-9/snippet")).status_code == 404
    assert (await client_for(None).get("/endpoints/ep-9/snippet")).status_code == 401
