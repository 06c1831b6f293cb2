"""How much of a request's body the control API reads."""

from typing import Any

import httpx
import pytest
from starlette.types import Message

from app.control_plane.api.bodies import BODY_LIMIT_BYTES
from app.control_plane.deployment import asgi
from app.control_plane.platform import Platform
from app.core.keys import issue_key
from app.settings import Settings
from tests.control_plane.platforms import ONE_DATABASE, admin_key

PART = b" " * (64 << 10)


async def post(platform: Platform, key: str, path: str, **headers: str) -> tuple[int, int]:
    """Send a body without an end: the status of the answer, and how many bytes were read for it."""
    read, status = 0, 0

    async def receive() -> Message:
        nonlocal read
        read += len(PART)
        return {"type": "http.request", "body": PART, "more_body": True}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    given = {"authorization": f"Bearer {key}", "content-type": "application/json", **headers}
    scope: dict[str, Any] = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "scheme": "http", "http_version": "1.1", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }  # fmt: skip
    await asgi(platform)(scope, receive, send)
    return status, read


@pytest.fixture
def key(platform: Platform, settings: Settings) -> str:
    return admin_key(settings)


@ONE_DATABASE
@pytest.mark.parametrize("path", ["/v1/endpoints", "/v1/models", "/v1/nothing", "/openapi.json"])
async def test_nothing_is_read_from_strangers(platform: Platform, path: str) -> None:
    status, read = await post(platform, issue_key(), path)
    assert status == (405 if path == "/openapi.json" else 401)
    assert read == 0


@ONE_DATABASE
@pytest.mark.parametrize("path", ["/v1/endpoints", "/v1/models", "/v1beta1/projects/p/locations/l:deploy"])
async def test_a_body_without_end_is_refused_once_it_is_too_large(platform: Platform, key: str, path: str) -> None:
    status, read = await post(platform, key, path)
    assert status == 413
    assert read <= BODY_LIMIT_BYTES + len(PART)


@ONE_DATABASE
async def test_one_that_says_so_is_refused_unread(platform: Platform, key: str) -> None:
    assert await post(platform, key, "/v1/endpoints", **{"content-length": str(2 * BODY_LIMIT_BYTES)}) == (413, 0)


async def test_the_refusal_is_in_our_form_and_in_the_audit(admin: httpx.AsyncClient) -> None:
    wish = {"name": "x" * BODY_LIMIT_BYTES, "model": "m-1"}
    refused = await admin.post("/endpoints", json=wish)
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "body_too_large")
    (entry,) = (await admin.get("/audit")).json()["data"]
    assert (entry["action"], entry["status"]) == ("POST /platform/v1/endpoints", 413)
    assert (await admin.post("/endpoints", json=wish | {"name": "x" * 1000})).status_code == 400
