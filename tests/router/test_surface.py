"""What a router answers without any unit: lists, health, its description, and the way to the control plane."""

from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from fastapi.openapi.models import OpenAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.core.chat_rules import ChatRequest
from app.core.routing import RoutingTable
from tests.router.tables import KEY, MakeRouter
from tests.router.units import forever


async def test_models_lists_what_the_key_may_call(make_router: MakeRouter) -> None:
    router = await make_router(forever)
    listed = [model.id async for model in router.openai().models.list()]
    assert listed == ["ep-1", "ep-down"]
    data = (await router.http().get("/v1/models")).json()["data"]
    assert [(model["name"], model["state"]) for model in data] == [("demo", "healthy"), ("down", "scheduling")]
    assert (await router.http(None).get("/v1/models")).status_code == 401
    assert router.units.responses == []


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
    schemas = description["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert {name.removeprefix("#/components/schemas/") for name in references(description)} <= set(schemas)
    assert set(schemas["ChatRequest"]["properties"]) == set(ChatRequest.model_fields)
    assert schemas["ChatRequest"]["required"] == ["model", "messages"]
    assert schemas["ChatRequest"]["additionalProperties"] is False


async def echo(request: Request) -> Response:
    body = (await request.body()).decode()
    seen = {"method": request.method, "url": str(request.url.path), "query": request.url.query, "body": body}
    headers = {"x-request-id": "of-the-control-plane", "x-kept": "yes"}
    return JSONResponse(seen | {"headers": dict(request.headers)}, 202, headers)


async def test_platform_paths_go_to_the_control_plane(make_router: MakeRouter, serve: Callable[..., str]) -> None:
    control_plane = serve(Starlette(routes=[Route("/platform/{path:path}", echo, methods=["POST", "DELETE"])]))
    router = await make_router(forever, serve_proxy_url=control_plane)
    answer = await router.http().post("/platform/v1/endpoints/ep%20x?confirm=DELETE", content=b'{"a": 1}')
    seen = answer.json()
    assert (answer.status_code, answer.headers["x-kept"]) == (202, "yes")
    assert (seen["method"], seen["query"], seen["body"]) == ("POST", "confirm=DELETE", '{"a": 1}')
    assert seen["headers"]["authorization"] == f"Bearer {KEY}"
    assert answer.headers.get_list("x-request-id") == [seen["headers"]["x-request-id"]]


@pytest.mark.parametrize("path", ["/platform/..%2f-/routes", "/platform/%0a", "/platform/./x", "/platform/a%5cb"])
async def test_no_path_leads_out_of_platform(make_router: MakeRouter, serve: Callable[..., str], path: str) -> None:
    everything = serve(Starlette(routes=[Route("/{path:path}", echo, methods=["GET"])]))
    answer = await (await make_router(forever, serve_proxy_url=everything)).http().get(path)
    assert answer.status_code in (202, 404)
    if answer.status_code == 202:  # the client itself had tidied the path
        assert answer.json()["url"].startswith("/platform/")


async def test_strangers_are_turned_away_before_their_body_is_read(make_router: MakeRouter) -> None:
    router = await make_router(forever)
    answer = await router.http(None).post("/platform/v1/endpoints", content=b"x" * (9 << 20))
    assert answer.status_code == 401


async def test_without_the_control_plane_503(make_router: MakeRouter) -> None:
    router = await make_router(forever, serve_proxy_url="http://127.0.0.1:1")
    answer = await router.http().get("/platform/v1/endpoints")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
