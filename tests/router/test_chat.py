"""POST /v1/chat/completions as callers see it: answers, refusals, and what happens when units fail."""

import asyncio
import json
import weakref
from typing import Any

import httpx
import openai
import pytest
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from app.core.chat_rules import ChatRequest, check_chat
from app.core.errors import BadRequest, InternalError, TooManyRequests, Unavailable, UnitGone, UnitLost
from app.router import chat
from tests.router.tables import OTHER_KEY, UNKNOWN_KEY, MakeRouter
from tests.router.units import WAIT_S, Answer, Script, forever

MESSAGES: Any = [{"role": "user", "content": "hello"}]
CHAT = "/v1/chat/completions"
WHOLE = json.dumps(
    {
        "id": "chat-1", "object": "chat.completion", "created": 1, "model": "ep-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()  # fmt: skip


async def whole(answer: Answer) -> None:
    await answer.send("application/json", WHOLE[:10], WHOLE[10:])
    await asyncio.Event().wait()  # the handle call ends after the stream, as it may in truth


async def lost(_: Answer) -> None:
    raise RayActorError


async def lost_link(answer: Answer) -> None:
    await answer.head()  # and the socket closes


def raising(error: Exception) -> Script:
    async def script(_: Answer) -> None:
        raise error

    return script


def failing(error: Any) -> Script:
    async def script(answer: Answer) -> None:
        await answer.fail(error)

    return script


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "ep-1", "messages": MESSAGES} | fields


async def test_the_openai_client_gets_an_answer(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    answer = await router.openai().chat.completions.with_raw_response.create(model="demo", messages=MESSAGES)
    assert answer.parse().choices[0].message.content == "Paris"
    assert answer.content == WHOLE
    assert answer.headers["x-modelunit-revision"] == "r1"
    assert answer.headers["x-request-id"].startswith("req-")
    assert router.units.applications == ["ep-1.r-r1"]


async def test_units_hear_our_ids_of_requests_that_callers_call_the_same(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    theirs = {"x-request-id": "req-0123456789abcdef01234567", "x-client-request-id": "mine"}
    answers = await asyncio.gather(*(router.http().post(CHAT, json=body(), headers=theirs) for _ in range(2)))
    assert sorted(router.units.request_ids) == sorted(answer.headers["x-request-id"] for answer in answers)
    assert len(set(router.units.request_ids) - set(theirs.values())) == 2


async def test_the_body_is_forwarded_and_not_rebuilt(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    raw = b'{ "messages":[{"content":"h\\u00e9","role":"user"}],\n"model":"ep-1", "temperature": 1.0 }'
    assert (await router.http().post(CHAT, content=raw)).status_code == 200
    assert router.units.bodies == [raw]


async def test_nothing_of_the_request_but_its_body_stays_in_memory_while_it_waits(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[weakref.ref[ChatRequest]] = []

    def checked(*args: Any) -> ChatRequest:
        request = check_chat(*args)
        kept.append(weakref.ref(request))
        return request

    async def looking(answer: Answer) -> None:
        assert [request() for request in kept] == [None]
        await whole(answer)

    monkeypatch.setattr(chat, "check_chat", checked)
    router = await make_router(looking)
    assert (await router.http().post(CHAT, json=body())).status_code == 200


async def test_a_complete_answer_cancels_nothing(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    assert (await router.http().post(CHAT, json=body())).status_code == 200
    await asyncio.sleep(0)  # what close() set going runs in the next turn of the loop
    await asyncio.sleep(0)
    assert not router.units.responses[0].cancelled.is_set()


@pytest.mark.parametrize("key", [None, "mu-wrong", UNKNOWN_KEY])
async def test_without_a_good_key_401(make_router: MakeRouter, key: str | None) -> None:
    router = await make_router(whole)
    answer = await router.http(key).post(CHAT, json=body())
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert router.units.responses == []


async def test_the_openai_client_knows_our_errors(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    with pytest.raises(openai.AuthenticationError):
        await router.openai("mu-wrong").chat.completions.create(model="ep-1", messages=MESSAGES)
    with pytest.raises(openai.NotFoundError) as missing:
        await router.openai().chat.completions.create(model="ep-9", messages=MESSAGES)
    assert missing.value.param == "model"
    with pytest.raises(openai.BadRequestError) as wrong:
        await router.openai().chat.completions.create(model="ep-1", messages=MESSAGES, temperature=3)
    assert wrong.value.param == "temperature"


async def test_anothers_endpoint_looks_like_an_unknown_one(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    answers = [await router.http().post(CHAT, json=body(model=model)) for model in ("ep-theirs", "theirs", "ep-9")]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert len({answer.text for answer in answers}) == 1
    assert (await router.http(OTHER_KEY).post(CHAT, json=body())).status_code == 404
    assert router.units.responses == []


async def test_an_endpoint_that_is_not_ready_503(make_router: MakeRouter) -> None:
    answer = await (await make_router(whole)).http().post(CHAT, json=body(model="down"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "the first unit is starting" in answer.json()["error"]["message"]


async def test_broken_json_400_and_too_much_413(make_router: MakeRouter) -> None:
    router = await make_router(whole, body_limit_bytes=1024)
    answer = await router.http().post(CHAT, content=b'{"model": ')
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
    answer = await router.http().post(CHAT, json=body(user="x" * 2000))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert router.units.responses == []


@pytest.mark.parametrize("loss", [lost, lost_link, raising(UnitLost("gone"))])
async def test_a_unit_lost_before_the_first_byte_costs_one_more_try(make_router: MakeRouter, loss: Script) -> None:
    router = await make_router(loss, whole)
    answer = await router.http().post(CHAT, json=body())
    assert (answer.status_code, answer.content) == (200, WHOLE)
    assert len(router.units.responses) == 2


async def test_units_that_were_gone_already_cost_no_try(make_router: MakeRouter) -> None:
    gone = raising(UnitGone("gone"))
    router = await make_router(gone, lost, gone, lost_link, whole)
    answer = await router.http().post(CHAT, json=body())
    assert (answer.status_code, answer.content) == (200, WHOLE)


@pytest.mark.parametrize("loss", [raising(UnitLost("gone")), lost_link])
async def test_two_lost_units_are_enough(make_router: MakeRouter, loss: Script) -> None:
    router = await make_router(loss)
    answer = await router.http().post(CHAT, json=body())
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unit_lost")
    assert answer.headers["retry-after"] == "5"
    assert len(router.units.responses) == 2


async def test_serves_own_full_queue_looks_like_ours(make_router: MakeRouter) -> None:
    router = await make_router(raising(BackPressureError(num_queued_requests=9, max_queued_requests=9)))
    answer = await router.http().post(CHAT, json=body())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
    assert (answer.json()["error"]["code"], answer.json()["error"]["type"]) == ("queue_full", "rate_limit_error")
    assert len(router.units.responses) == 1


async def test_an_unexpected_failure_says_nothing_of_itself(make_router: MakeRouter) -> None:
    router = await make_router(raising(ValueError("/secret/path")))
    answer = await router.http().post(CHAT, json=body())
    assert answer.status_code == 500
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("error", "retry_after"),
    [
        (BadRequest("The prompt has 9000 tokens, the limit is 4096.", "messages"), None),
        (TooManyRequests("Too many."), "1"),
        (Unavailable("The engine is full."), "5"),
        (InternalError("The engine failed."), None),
    ],
)
async def test_what_the_engine_refuses_is_passed_on(make_router: MakeRouter, error: Any, retry_after: str) -> None:
    router = await make_router(failing(error))
    for stream in (False, True):
        answer = await router.http().post(CHAT, json=body(stream=stream))
        assert (answer.status_code, answer.json()) == (error.status, error.body())
        assert answer.headers.get("retry-after") == retry_after


async def test_no_first_token_in_time_504_and_the_work_is_cancelled(make_router: MakeRouter) -> None:
    router = await make_router(forever, first_token_timeout_s=0.05, answer_timeout_s=0.05)
    for stream in (False, True):
        answer = await router.http().post(CHAT, json=body(stream=stream))
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    async with asyncio.timeout(WAIT_S):
        for response in router.units.responses:
            await response.cancelled.wait()


async def test_frames_for_nobody_and_nonsense_hurt_no_other_answer(make_router: MakeRouter) -> None:
    async def noisy(answer: Answer) -> None:
        stranger = Answer(bytes(16), answer._writer, b"")
        await stranger.send("text/plain", b"for nobody")
        await whole(answer)

    async def nonsense(answer: Answer) -> None:
        answer._writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.Event().wait()

    router = await make_router(nonsense, noisy, first_token_timeout_s=0.2, answer_timeout_s=0.2)
    both: list[httpx.Response] = await asyncio.gather(*(router.http().post(CHAT, json=body()) for _ in range(2)))
    assert sorted(answer.status_code for answer in both) == [200, 504]
