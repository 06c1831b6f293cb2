"""The same chat under the paths that other clients know."""

import asyncio
import json
from collections.abc import Callable

import openai
import pytest
import requests
from starlette.applications import Starlette
from starlette.routing import Route
from volcenginesdkarkruntime import AsyncArk
from volcenginesdkarkruntime import _exceptions as ark_errors

from tests.router.tables import KEY, OTHER_KEY, MakeRouter
from tests.router.test_chat import MESSAGES, WHOLE, body, whole
from tests.router.test_predict import streaming
from tests.router.test_surface import echo
from tests.router.units import WAIT_S, forever

ARK = "/api/v3/chat/completions"
LOCATION = "/v1beta1/projects/my project/locations/eu-1"
VERTEX = f"{LOCATION}/endpoints/ep-1/chat/completions"


async def test_ark_clients_chat(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    answer = await router.http().post(ARK, json=body())
    assert (answer.status_code, answer.content) == (200, WHOLE)
    assert answer.headers["x-modelunit-revision"] == "r1"
    assert (await router.http(None).post(ARK, json=body())).status_code == 401
    assert (await router.http().post(ARK, json={"messages": MESSAGES})).json()["error"]["param"] == "model"


async def test_arks_own_client_chats_streams_and_knows_our_errors(
    make_router: MakeRouter, serve: Callable[..., str]
) -> None:
    router = await make_router(whole, streaming, whole)
    client = AsyncArk(base_url=f"{serve(router.app)}/api/v3", api_key=KEY, max_retries=0, timeout=WAIT_S)
    answer = await client.chat.completions.create(model="ep-1", messages=MESSAGES, temperature=0, max_tokens=8)
    assert answer.choices[0].message.content == "Paris"
    stream = await client.chat.completions.create(model="ep-1", messages=MESSAGES, stream=True)
    assert [event.choices[0].delta.content async for event in stream] == ["By"]
    said = answer.choices[0].message.model_dump()
    await client.chat.completions.create(
        model="ep-1", messages=[*MESSAGES, said, *MESSAGES], thinking={"type": "disabled"}
    )
    got = json.loads(router.units.bodies[2])
    assert got["messages"] == [*MESSAGES, {name: said[name] for name in said if name != "encrypted_content"}, *MESSAGES]
    assert (got["reasoning_effort"], "thinking" in got) == ("none", False)
    with pytest.raises(ark_errors.ArkNotFoundError):
        await client.chat.completions.create(model="ep-9", messages=MESSAGES)
    with pytest.raises(ark_errors.ArkBadRequestError) as wrong:
        await client.chat.completions.create(model="ep-1", messages=MESSAGES, temperature=3)
    assert wrong.value.param == "temperature"
    await client.close()


async def test_the_example_of_s3_by_requests(make_router: MakeRouter, serve: Callable[..., str]) -> None:
    router = await make_router(whole)
    sent = {
        "model": "demo",
        "max_tokens": 20,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "hello"},
        ],
    }
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    url = f"{serve(router.app)}/v1/chat/completions"
    answer = await asyncio.to_thread(
        requests.post, url, headers=headers, data=json.dumps(sent), verify=False, timeout=WAIT_S
    )
    assert (answer.status_code, answer.text) == (200, WHOLE.decode())
    assert json.loads(router.units.bodies[0]) == sent


@pytest.mark.parametrize("fields", [{}, {"model": ""}, {"model": "ep-1"}, {"model": "demo"}, {"model": "m-1"}])
async def test_on_vertex_the_path_names_the_endpoint(make_router: MakeRouter, fields: dict[str, str]) -> None:
    router = await make_router(whole)
    sent = {"messages": MESSAGES} | fields
    answer = await router.http().post(VERTEX, json=sent)
    assert (answer.status_code, answer.content) == (200, WHOLE)
    assert json.loads(router.units.bodies[0]) == sent
    assert router.units.applications == ["ep-1.r-r1"]


async def test_the_openai_client_chats_below_a_vertex_endpoint(make_router: MakeRouter) -> None:
    http = (await make_router(whole)).http(None)
    base_url = f"http://router{LOCATION}/endpoints/demo"
    client = openai.AsyncOpenAI(base_url=base_url, api_key=KEY, http_client=http, max_retries=0, timeout=WAIT_S)
    answer = await client.chat.completions.create(model="", messages=MESSAGES)
    assert answer.choices[0].message.content == "Paris"


async def test_a_body_that_names_another_endpoint_is_refused(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    for model in ("ep-down", "ep-theirs", "nothing"):
        answer = await router.http().post(VERTEX, json=body(model=model))
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (400, "model", "invalid_value")
        assert "ep-1" in error["message"]
    for wrong in (None, 5, "x" * 129):
        answer = await router.http().post(VERTEX, json=body(model=wrong))
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    assert router.units.responses == []


async def test_vertex_refuses_like_the_others(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    sent = {"messages": MESSAGES}
    assert (await router.http(None).post(VERTEX, json=sent)).status_code == 401
    refusals = [
        await router.http().post(f"{LOCATION}/endpoints/{name}/chat/completions", json=sent)
        for name in ("ep-9", "ep-theirs")
    ]
    refusals.append(await router.http(OTHER_KEY).post(VERTEX, json=sent))
    assert [answer.status_code for answer in refusals] == [404] * 3
    assert len({answer.text for answer in refusals}) == 1
    answer = await router.http().post(f"{LOCATION}/endpoints/down/chat/completions", json=sent)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{LOCATION}:deploy"),
        ("GET", f"{LOCATION}/endpoints/ep-1"),
        ("GET", f"{LOCATION}/endpoints"),
        ("GET", f"{LOCATION}/operations/op-1"),
    ],
)
async def test_the_rest_of_vertex_is_the_control_planes(
    make_router: MakeRouter, serve: Callable[..., str], method: str, path: str
) -> None:
    control_plane = serve(Starlette(routes=[Route("/platform/{path:path}", echo, methods=[method])]))
    router = await make_router(forever, serve_proxy_url=control_plane)
    content = b'{"custom_model": {}}' if method == "POST" else b""
    answer = await router.http().request(method, f"{path}?a=b", content=content)
    seen = answer.json()
    assert answer.status_code == 202
    assert (seen["url"], seen["query"], seen["body"]) == (
        f"/platform{path}",
        "a=b",
        content.decode(),
    )
    assert seen["headers"]["authorization"] == f"Bearer {KEY}"
    assert (await router.http(None).request(method, path)).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", f"{LOCATION}:undeploy", 404),
        ("GET", "/v1beta1/projects/p", 404),
        ("GET", f"{LOCATION}/endpoints/ep-1/x", 404),
        ("DELETE", f"{LOCATION}/endpoints/ep-1", 405),
        ("GET", f"{LOCATION}:deploy", 405),
    ],
)
async def test_other_vertex_paths_lead_nowhere(make_router: MakeRouter, method: str, path: str, status: int) -> None:
    answer = await (await make_router(forever)).http().request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}


async def test_no_vertex_path_leads_out_of_platform(make_router: MakeRouter, serve: Callable[..., str]) -> None:
    everything = serve(Starlette(routes=[Route("/{path:path}", echo, methods=["GET"])]))
    http = (await make_router(forever, serve_proxy_url=everything)).http()
    for endpoint in ("%2e%2e", "..%2f..", "%5c", "%0a"):
        answer = await http.get(f"{LOCATION}/endpoints/{endpoint}")
        assert answer.status_code in (404, 405), endpoint
