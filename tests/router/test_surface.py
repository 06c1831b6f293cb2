"""What a router answers without any unit: lists, health, its description, and the way to the control plane."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import openai
import pytest
from fastapi.openapi.models import OpenAPI
from schemathesis.specs.openapi.definitions import OPENAPI_31
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from app.core.chat_rules import ChatRequest
from app.core.routing import RoutingTable
from app.router import deployment
from tests.router.tables import KEY, MakeRouter
from tests.router.test_chat import WHOLE
from tests.router.units import Answer, forever


async def test_models_lists_what_the_key_may_call(make_router: MakeRouter) -> None:
    router = await make_router(forever)
    listed = [model.id async for model in router.openai().models.list()]
    assert listed == ["ep-1", "ep-down"]
    data = (await router.http().get("/v1/models")).json()["data"]
    assert [(model["name"], model["state"]) for model in data] == [("demo", "healthy"), ("down", "scheduling")]
    assert (await router.http(None).get("/v1/models")).status_code == 401
    assert router.units.responses == []


async def test_one_model_is_told_by_id_and_by_name(make_router: MakeRouter) -> None:
    router = await make_router(forever)
    models = router.openai().models
    listed = [model async for model in models.list()]
    assert [await models.retrieve(name) for name in ("ep-1", "down")] == listed
    for name in ("ep-theirs", "ep-9"):
        with pytest.raises(openai.NotFoundError):
            await models.retrieve(name)
    assert (await router.http(None).get("/v1/models/ep-1")).status_code == 401


async def test_alive_at_once_and_ready_with_a_table(make_router: MakeRouter) -> None:
    waiting = await make_router(forever, snapshot=RoutingTable())
    assert (await waiting.http(None).get("/healthz")).status_code == 200
    answer = await waiting.http(None).get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "waiting for the routing table")

    answer = await (await make_router(forever)).http(None).get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "routing_table": 7, "control_plane": "unreachable"}


async def test_what_is_not_there_404_405(make_router: MakeRouter) -> None:
    http = (await make_router(forever)).http()
    assert (await http.get("/v1/nothing")).json()["error"]["code"] == "not_found"
    assert (await http.get("/v1/chat/completions")).status_code == 405


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    return [found for value in node for found in references(value)] if isinstance(node, list) else []


async def test_the_description_is_openapi_and_made_of_the_same_table(make_router: MakeRouter) -> None:
    answer = await (await make_router(forever)).http(None).get("/openapi.json")
    description = answer.json()
    OpenAPI.model_validate(description)
    jsonschema.Draft202012Validator(OPENAPI_31).validate(description)
    schemas = description["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    defined = {f"#/components/{kind}/{name}" for kind, parts in description["components"].items() for name in parts}
    assert set(references(description)) <= defined
    assert set(schemas["ChatRequest"]["properties"]) == set(ChatRequest.model_fields)
    assert schemas["ChatRequest"]["required"] == ["model", "messages"]
    assert schemas["ChatRequest"]["additionalProperties"] is False
    assert schemas["AddressedChatRequest"]["required"] == ["messages"]
    for form in ("ChatRequest", "AddressedChatRequest"):
        check = jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{form}", **description})
        assert check.is_valid({"model": "ep-1", "messages": [{"role": "user", "content": "hello"}]})
        assert not check.is_valid({"model": "ep-1", "messages": [{"role": "user", "content": None}]})
        assert not check.is_valid({"model": "ep-1", "messages": [], "chat_template": "x"})


async def test_answers_are_as_described(make_router: MakeRouter) -> None:
    description = (await (await make_router(forever)).http(None).get("/openapi.json")).json()
    check = jsonschema.Draft202012Validator({"$ref": "#/components/schemas/ChatAnswer", **description})
    assert [error.message for error in check.iter_errors(json.loads(WHOLE))] == []
    assert not check.is_valid({})


async def test_every_path_is_described(make_router: MakeRouter) -> None:
    router = await make_router(forever)
    described = (await router.http(None).get("/openapi.json")).json()["paths"]
    served = {
        (route.path, method)
        for route in router.app.routes
        if route.include_in_schema and not route.path.startswith("/platform/")  # which describes itself
        for method in route.methods - {"HEAD"}
    }
    assert served == {(path, method.upper()) for path, methods in described.items() for method in methods}


async def test_what_is_described_as_open_is_open_and_nothing_else_is(make_router: MakeRouter) -> None:
    router = await make_router(forever)
    described = (await router.http(None).get("/openapi.json")).json()["paths"]
    for path, operations in described.items():
        for method, operation in operations.items():
            answer = await router.http(None).request(method, path)
            assert answer.status_code == (200 if operation.get("security") == [] else 401), path
            assert str(answer.status_code) in operation["responses"]


async def echo(request: Request) -> Response:
    body = (await request.body()).decode()
    seen = {"method": request.method, "url": str(request.url.path), "query": request.url.query, "body": body}
    headers = {"x-request-id": "of-the-control-plane", "x-kept": "yes"}
    return JSONResponse(seen | {"headers": dict(request.headers)}, 202, headers)


async def test_platform_paths_go_to_the_control_plane(make_router: MakeRouter, serve: Callable[..., str]) -> None:
    control_plane = serve(Starlette(routes=[Route("/platform/{path:path}", echo, methods=["POST", "DELETE"])]))
    router = await make_router(forever, serve_proxy_url=control_plane)
    forged = {name: f"req-{'f' * 24}" for name in ("x-request-id", "x-modelunit-request-id")}
    answer = await router.http().post(
        "/platform/v1/endpoints/ep%20x?confirm=DELETE", content=b'{"a": 1}', headers=forged
    )
    seen = answer.json()
    assert (answer.status_code, answer.headers["x-kept"]) == (202, "yes")
    assert (seen["method"], seen["query"], seen["body"]) == ("POST", "confirm=DELETE", '{"a": 1}')
    assert seen["headers"]["authorization"] == f"Bearer {KEY}"
    assert answer.headers.get_list("x-request-id") == [seen["headers"]["x-modelunit-request-id"]]
    assert not set(forged.values()) & set(seen["headers"].values())


@pytest.mark.parametrize("path", ["/platform/..%2f-/routes", "/platform/%0a", "/platform/./x", "/platform/a%5cb"])
async def test_no_path_leads_out_of_platform(make_router: MakeRouter, serve: Callable[..., str], path: str) -> None:
    everything = serve(Starlette(routes=[Route("/{path:path}", echo, methods=["GET"])]))
    answer = await (await make_router(forever, serve_proxy_url=everything)).http().get(path)
    assert answer.status_code in (202, 404)
    if answer.status_code == 202:  # the client itself had tidied the path
        assert answer.json()["url"].startswith("/platform/")


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("/platform/v1/models/a%250ab", "/platform/v1/models/a%0ab"),
        ("/platform/%252e%252e/-/routes", "/platform/%2e%2e/-/routes"),
        ("/platform/a%25252e", "/platform/a%252e"),
        ("/platform/v1/models/%E6%A8%A1%20x%3Fy%23z:retry", "/platform/v1/models/模 x?y#z:retry"),
    ],
)
async def test_a_path_is_decoded_once(
    make_router: MakeRouter, serve: Callable[..., str], sent: str, arrives: str
) -> None:
    """What was encoded twice would else be a line's end, or lead out of /platform, behind the router."""

    async def path_of(request: Request) -> Response:
        return JSONResponse(request.scope["path"])

    everything = serve(Starlette(routes=[Route("/{path:path}", path_of, methods=["GET"])]))
    answer = await (await make_router(forever, serve_proxy_url=everything)).http().get(sent)
    assert (answer.status_code, answer.json()) == (200, arrives)


async def test_strangers_are_turned_away_before_their_body_is_read(make_router: MakeRouter) -> None:
    router = await make_router(forever)
    answer = await router.http(None).post("/platform/v1/endpoints", content=b"x" * (9 << 20))
    assert answer.status_code == 401


async def test_without_the_control_plane_503(make_router: MakeRouter) -> None:
    router = await make_router(forever, serve_proxy_url="http://127.0.0.1:1")
    answer = await router.http().get("/platform/v1/endpoints")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


async def test_what_serves_proxy_says_for_a_replica_that_died_is_a_503_in_our_form(
    make_router: MakeRouter, serve: Callable[..., str]
) -> None:
    async def fail(_: Request) -> Response:
        return PlainTextResponse("Internal Server Error", 500)

    dead = serve(Starlette(routes=[Route("/platform/{path:path}", fail)]))
    answer = await (await make_router(forever, serve_proxy_url=dead)).http().get("/platform/v1/endpoints")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


async def ask(app: ASGIApp, method: str, path: str, *headers: tuple[bytes, bytes]) -> tuple[int, int]:
    """The status of the answer, and how many parts of the body were read for it; without headers it is endless."""
    read, status = 0, 0

    async def receive() -> Message:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * 1000, "more_body": not headers}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(
        {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
            "root_path": "", "scheme": "http", "http_version": "1.1", "headers": headers,
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        },
        receive,
        send,
    )  # fmt: skip
    return status, read


async def test_an_address_too_long_to_be_passed_on_is_nowhere(make_router: MakeRouter) -> None:
    router = await make_router(forever)
    status, _ = await ask(router.app, "GET", "/platform/" + '"' * 30_000, (b"authorization", f"Bearer {KEY}".encode()))
    assert status == 404


@pytest.mark.parametrize(("method", "status"), [("GET", 503), ("HEAD", 503), ("POST", 401), ("DELETE", 401)])
async def test_strangers_send_no_bodies_to_what_they_may_read(
    make_router: MakeRouter, method: str, status: int
) -> None:
    router = await make_router(forever, body_limit_bytes=10_000)
    assert await ask(router.app, method, "/platform/openapi.json") == (status, 0)


async def test_headers_of_any_bytes_pass(make_router: MakeRouter, serve: Callable[..., str]) -> None:
    async def odd(request: Request) -> Response:
        answer = Response()
        answer.raw_headers = [(b"x-odd", request.headers["x-odd"].encode("latin-1"))]
        return answer

    control_plane = serve(Starlette(routes=[Route("/platform/{path:path}", odd)]))
    router = await make_router(forever, serve_proxy_url=control_plane)
    for value in ("é".encode(), b"\xe9", b"\xff\xfe"):
        answer = await router.http().get("/platform/v1/endpoints", headers={b"x-odd": value})
        assert (answer.status_code, dict(answer.headers.raw)[b"x-odd"]) == (200, value)


async def test_one_request_too_many_is_told_to_come_again(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    called, go = asyncio.Event(), asyncio.Event()

    async def script(answer: Answer) -> None:
        called.set()
        await go.wait()
        await answer.send("application/json", b"{}")

    monkeypatch.setattr(deployment, "MAX_REQUESTS", 1)
    router = await make_router(script)
    wish = {"model": "ep-1", "messages": [{"role": "user", "content": "hello"}]}
    first = asyncio.create_task(router.http().post("/v1/chat/completions", json=wish))
    await called.wait()
    refused = await router.http().get("/v1/models")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert refused.json()["error"]["code"] == "unavailable"
    assert refused.headers["x-request-id"]
    assert (await router.http(None).get("/healthz")).status_code == 200
    go.set()
    assert (await first).status_code == 200
    assert (await router.http().get("/v1/models")).status_code == 200
