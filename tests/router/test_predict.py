""":predict, :rawPredict and :streamRawPredict as Vertex's callers send them (S4), by plain HTTP."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message

from app.core.errors import BadRequest
from tests.router.tables import KEY, OTHER_KEY, MakeRouter, table
from tests.router.test_chat import WHOLE, whole
from tests.router.test_limits import limited
from tests.router.units import WAIT_S, Answer, forever, until

PLACE = "/v1beta1/projects/my project/locations/eu-1"
PREDICT, RAW, STREAM = (f"{PLACE}/endpoints/ep-1:{verb}" for verb in ("predict", "rawPredict", "streamRawPredict"))
MESSAGES: Any = [{"role": "user", "content": "How to tell the time by looking at the sky?"}]
S4 = {
    "prompt": "How to tell the time by looking at the sky?",
    "temperature": 0, "top_p": 1, "max_tokens": 154, "ignore_eos": True,
}  # fmt: skip
EVENTS = (
    b'data: {"id": "chat-1", "object": "chat.completion.chunk", "created": 1, "model": "ep-1",'
    b' "choices": [{"index": 0, "delta": {"content": "By"}}]}\n\n',
    b"data: [DONE]\n\n",
)


async def echoing(answer: Answer) -> None:
    """Says what it was asked, after everybody else has been asked too."""
    asked = json.loads(answer.body)["messages"][-1]["content"]
    told = json.loads(WHOLE)
    told["choices"][0]["message"]["content"] = f"{asked}!"
    await answer.send("application/json", json.dumps(told).encode())


async def streaming(answer: Answer) -> None:
    await answer.send("text/event-stream", *EVENTS)


def prompts(*texts: str) -> dict[str, Any]:
    return {"instances": [{"prompt": text} for text in texts]}


async def test_the_call_of_the_manual(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    answer = await router.http().post(PREDICT, json={"instances": [S4]})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "predictions": ["Paris"],
        "deployedModelId": "r1",
        "model": "projects/my project/locations/eu-1/models/m-1",
        "modelDisplayName": "demo",
        "modelVersionId": "BF16",
        "metadata": {"tokenMetadata": {"inputTokenCount": {"totalTokens": 1}, "outputTokenCount": {"totalTokens": 1}}},
    }
    assert answer.headers["x-modelunit-revision"] == "r1"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req-")
    settings = {name: value for name, value in S4.items() if name != "prompt"}
    assert json.loads(router.units.bodies[0]) == settings | {"messages": MESSAGES}
    assert router.units.applications == ["ep-1.r-r1"]


async def test_all_instances_at_once_and_answers_in_their_order(make_router: MakeRouter) -> None:
    together = asyncio.Barrier(3)

    async def meeting(answer: Answer) -> None:
        await together.wait()
        await echoing(answer)

    router = await make_router(meeting)
    sent = prompts("a", "b", "c") | {"parameters": {"max_tokens": 7}}
    answer = await router.http().post(PREDICT, json=sent)
    assert answer.json()["predictions"] == ["a!", "b!", "c!"]
    assert [json.loads(body)["max_tokens"] for body in router.units.bodies] == [7] * 3
    counted = router.figures.of("ep-1")
    assert (counted.requests["2xx"], counted.running) == (3, 0)


@pytest.mark.parametrize("path", [PREDICT, RAW])
async def test_messages_by_model_gardens_format(make_router: MakeRouter, path: str) -> None:
    http = (await make_router(whole)).http()
    asked = {"@requestFormat": "chatCompletions", "messages": MESSAGES, "logprobs": True}
    one = await http.post(path, json={"instances": [asked]})
    assert one.json()["predictions"] == json.loads(WHOLE)
    two = await http.post(path, json={"instances": [asked, {"text": "a"}]})
    assert two.json()["predictions"] == [json.loads(WHOLE), "Paris"]


@pytest.mark.parametrize("path", [PREDICT, RAW])
async def test_what_is_wrong_with_one_reaches_no_unit(make_router: MakeRouter, path: str) -> None:
    router = await make_router(whole)
    for wrong, param in (
        (
            {"instances": [{"prompt": "a"}, {"prompt": "a"}, {"prompt": "a", "temperature": 3}]},
            "instances[2].temperature",
        ),
        (prompts("a") | {"parameters": {"top_p": 2}}, "parameters.top_p"),
        ({"instances": [{"prompt": "a"}, {"prompt": "a", "model": "other"}]}, "instances[1].model"),
        ({"instances": [{"prompt": "a", "stream": True}]}, "instances[0].stream"),
        (prompts(*"a" * 33), "instances"),
        ({"instances": []}, "instances"),
    ):
        answer = await router.http().post(path, json=wrong)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert router.units.responses == []
    assert router.figures.of("").requests["4xx"] == 6


async def test_one_that_fails_fails_the_call_and_the_others_end(make_router: MakeRouter) -> None:
    async def picky(answer: Answer) -> None:
        if b'"too long"' not in answer.body:
            await forever(answer)
        await answer.fail(BadRequest("The prompt has 9000 tokens, the limit is 4096.", "messages"))

    router = await make_router(picky)
    answer = await router.http().post(PREDICT, json=prompts("a", "too long", "c"))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "instances[1].prompt")
    assert error["message"] == "instances[1]: The prompt has 9000 tokens, the limit is 4096."
    async with asyncio.timeout(WAIT_S):
        for response in (router.units.responses[0], router.units.responses[2]):
            await response.cancelled.wait()
    await until(lambda: router.figures.of("ep-1").running == 0)


async def test_each_counts_against_the_limit_of_requests(make_router: MakeRouter) -> None:
    snapshot = table()
    limited = snapshot.routes["ep-1"].model_copy(update={"qps": 2.0})
    router = await make_router(echoing, snapshot=snapshot.model_copy(update={"routes": {"ep-1": limited}}))
    assert (await router.http().post(PREDICT, json=prompts("a"))).status_code == 200
    answer = await router.http().post(PREDICT, json=prompts("a", "b"))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.json()["error"]["type"] == "ModelArts.4206"
    router.clock.now += 1
    assert (await router.http().post(PREDICT, json=prompts("a", "b"))).status_code == 200


async def test_a_caller_who_leaves_ends_them_all(make_router: MakeRouter) -> None:
    router = await make_router(forever)
    leave = asyncio.Event()
    body: list[bytes] = [json.dumps(prompts("a", "b")).encode()]
    sent: list[Message] = []

    async def receive() -> Message:
        if body:
            return {"type": "http.request", "body": body.pop()}
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    calling = asyncio.ensure_future(call(router.app, PREDICT, receive, send))
    await until(lambda: len(router.units.responses) == 2)
    leave.set()
    async with asyncio.timeout(WAIT_S):
        await calling
        for response in router.units.responses:
            await response.cancelled.wait()
    assert sent == []
    assert router.figures.of("ep-1").running == 0


async def call(app: ASGIApp, path: str, receive: Any, send: Any) -> None:
    headers = [(b"authorization", f"Bearer {KEY}".encode())]
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "scheme": "http", "http_version": "1.1", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    await app(scope, receive, send)


async def test_parameters_do_not_multiply_what_is_held(make_router: MakeRouter) -> None:
    router = await make_router(whole, body_limit_bytes=10_000)
    sent = prompts(*"abcd") | {"parameters": {"logit_bias": {str(token): 1 for token in range(400)}}}
    answer = await router.http().post(PREDICT, json=sent)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert router.units.responses == []


async def test_a_raw_chat_is_answered_like_a_chat(make_router: MakeRouter) -> None:
    router = await make_router(whole, streaming)
    raw = b'{ "messages": [{"role": "user", "content": "h\\u00e9"}], "model": "demo" }'
    answer = await router.http().post(RAW, content=raw)
    assert (answer.status_code, answer.content) == (200, WHOLE)
    assert router.units.bodies == [raw]
    streamed = await router.http().post(RAW, json={"messages": MESSAGES, "stream": True})
    assert (streamed.headers["content-type"], streamed.content) == ("text/event-stream", b"".join(EVENTS))
    refused = await router.http().post(RAW, json={"messages": MESSAGES, "temperature": 3})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "temperature")


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [S4 | {"stream": True}]},
        {"instances": [S4]},
        {"instances": [{"text": S4["prompt"]}], "parameters": {"stream": True}},
        {"instances": [{"@requestFormat": "chatCompletions", "messages": MESSAGES}]},
        {"messages": MESSAGES, "stream": True},
        {"messages": MESSAGES},
    ],
)
async def test_a_raw_stream(make_router: MakeRouter, body: dict[str, Any]) -> None:
    router = await make_router(streaming)
    async with router.http().stream("POST", STREAM, json=body) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
        assert answer.headers["x-modelunit-revision"] == "r1"
        assert await answer.aread() == b"".join(EVENTS)
    sent = json.loads(router.units.bodies[0])
    assert (sent["stream"], sent["messages"]) == (True, MESSAGES)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": MESSAGES, "stream": False}, "stream"),
        ({"instances": [S4 | {"stream": False}]}, "instances[0].stream"),
        (prompts("a", "b"), "instances"),
        ({"instances": [S4 | {"temperature": 3}]}, "instances[0].temperature"),
        ({"instances": [{"prompt": "a", "stream": 5}]}, "instances[0].stream"),
        ({"messages": MESSAGES, "temperature": 3}, "temperature"),
    ],
)
async def test_what_cannot_be_a_raw_stream(make_router: MakeRouter, body: dict[str, Any], param: str) -> None:
    router = await make_router(streaming)
    answer = await router.http().post(STREAM, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert router.units.responses == []
    assert router.figures.of("").requests["4xx"] == 1


@pytest.mark.parametrize("path", [PREDICT, RAW, STREAM])
async def test_predictions_are_refused_like_chats(make_router: MakeRouter, path: str) -> None:
    router = await make_router(whole)
    sent = prompts("a")
    assert (await router.http(None).post(path, json=sent)).status_code == 401
    assert (await router.http(None).post(path, content=b"x" * (9 << 20))).status_code == 401
    assert (await router.http().post(path, content=b"x" * (9 << 20))).status_code == 413
    assert (await router.http().post(path, content=b"{")).json()["error"]["code"] == "invalid_json"
    hidden = [
        await router.http().post(path.replace("ep-1", "ep-theirs"), json=sent),
        await router.http().post(path.replace("ep-1", "ep-9"), json=sent),
        await router.http(OTHER_KEY).post(path, json=sent),
    ]
    assert [answer.status_code for answer in hidden] == [404] * 3
    down = await router.http().post(path.replace("ep-1", "down"), json=sent)
    assert (down.status_code, down.headers["retry-after"]) == (503, "5")
    assert router.units.responses == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "ep-1:explain", 404), ("POST", "ep-1:predict:predict", 404), ("GET", "ep-1:predict", 404),
        ("POST", "ep-1:", 405), ("POST", "ep-1/:predict", 404), ("DELETE", "ep-1:predict", 405),
        ("POST", "ep-1:PREDICT", 404),
    ],
)  # fmt: skip
async def test_other_verbs_lead_nowhere(make_router: MakeRouter, method: str, path: str, status: int) -> None:
    router = await make_router(whole)
    answer = await router.http().request(method, f"{PLACE}/endpoints/{path}", json=prompts("a"))
    assert (answer.status_code, set(answer.json())) == (status, {"error"})
    assert router.units.responses == []


async def test_over_a_real_socket_and_by_the_endpoints_name(
    make_router: MakeRouter, serve: Callable[[ASGIApp], str]
) -> None:
    router = await make_router(echoing)
    async with httpx.AsyncClient(base_url=serve(router.app), trust_env=False, timeout=WAIT_S) as http:
        path = f"{PLACE}/endpoints/demo:predict"
        answer = await http.post(path, json=prompts("a", "b"), headers={"authorization": f"Bearer {KEY}"})
    assert answer.json()["predictions"] == ["a!", "b!"]


@pytest.mark.parametrize(
    "of_key", [{"concurrency": 2}, {"requests_per_minute": 2}, {"concurrency": 2, "requests_per_minute": 10}]
)
async def test_more_than_the_key_may_ever_have_at_once_is_the_callers_mistake(
    make_router: MakeRouter, of_key: dict[str, int]
) -> None:
    router = await make_router(echoing, snapshot=limited(**of_key))
    answer = await router.http().post(PREDICT, json=prompts("a", "b", "c"))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "instances")
    assert "instances has 3" in error["message"]
    assert "2 at the most" in error["message"]
    assert router.units.responses == []
    assert (await router.http().post(PREDICT, json=prompts("a", "b"))).status_code == 200


async def test_what_may_not_come_now_takes_nothing(make_router: MakeRouter) -> None:
    router = await make_router(echoing, snapshot=limited(requests_per_minute=3))
    assert (await router.http().post(PREDICT, json=prompts("a", "b"))).status_code == 200
    assert (await router.http().post(PREDICT, json=prompts("a", "b"))).status_code == 429
    assert len(router.units.responses) == 2
    assert (await router.http().post(PREDICT, json=prompts("a"))).status_code == 200
