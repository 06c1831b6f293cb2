"""/v1/endpoints/{id}/snippet; tests/router/test_running_snippets.py runs the code."""

from collections.abc import Callable
from typing import get_args

import httpx
import pytest

from app.control_plane.platform import Platform
from app.core.snippets import Client
from tests.control_plane.platforms import ONE_DATABASE, by_name, spec


@pytest.fixture
def path(platform: Platform) -> str:
    platform.declarations.declare([spec("demo")])
    return f"/endpoints/{by_name(platform)['demo'].id}/snippet"


@ONE_DATABASE
async def test_a_snippet_names_the_endpoint_and_no_key(admin: httpx.AsyncClient, path: str) -> None:
    for client in get_args(Client):
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


@ONE_DATABASE
async def test_an_unknown_endpoint_has_no_snippet(
    admin: httpx.AsyncClient, client_for: Callable[[str | None], httpx.AsyncClient]
) -> None:
    assert (await admin.get("/endpoints/ep-9/snippet")).status_code == 404
    assert (await client_for(None).get("/endpoints/ep-9/snippet")).status_code == 401
