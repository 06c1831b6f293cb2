"""What a router writes down of each request, however it ends."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from app.core.errors import BadRequest, InternalError, UnitGone, UnitLost
from app.core.frames import Frame, Kind
from app.core.usage import Entry, Tokens
from app.router import stream as module
from app.router.stream import Buffers, Stream
from app.router.usage import UsageMeter
from tests.router.tables import Book, Clock, MakeRouter, table
from tests.router.test_streaming import BODY, CHAT, DONE, chunk, client
from tests.router.units import WAIT_S, Answer, Script, forever, until

Serve = Callable[..., str]
TAKEN = Tokens(prompt_tokens=30, cached_tokens=16, completion_tokens=7)
PLAIN = BODY | {"stream": False}


def counted(entry: Entry) -> tuple[int, int, int, int, int]:
    tokens = (entry.prompt_tokens, entry.cached_tokens, entry.completion_tokens)
    return (entry.requests, entry.partial_requests, *tokens)


EXACT = (1, 0, 30, 16, 7)


async def begin(answer: Answer) -> None:
    """The engine has read the prompt and made two tokens; vLLM's first event has none."""
    await answer.head(prompt_tokens=30, cached_tokens=16)
    await answer.data(b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n')
    await answer.data(chunk("one"))
    await answer.data(chunk("two") if b"stream" in answer.body else b"")


async def complete(answer: Answer) -> None:
    await begin(answer)
    await answer.data(DONE)
    await answer.end(TAKEN)


async def failed(answer: Answer) -> None:
    await begin(answer)
    await answer.fail(InternalError("The engine failed."), TAKEN)


async def refused_at_once(answer: Answer) -> None:
    await answer.fail(BadRequest("Too long."))


async def failed_at_once(answer: Answer) -> None:
    await answer.fail(InternalError("The engine failed."), TAKEN)


async def dead(answer: Answer) -> None:
    await begin(answer)
    raise RayActorError


async def from_before_an_upgrade(answer: Answer) -> None:
    await answer.head()
    await answer.data(chunk("one"))
    await answer.end()


def raising(error: Exception) -> Script:
    async def script(_: Answer) -> None:
        raise error

    return script


@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        (complete, [EXACT]),
        (failed, [EXACT]),
        (failed_at_once, [EXACT]),
        (refused_at_once, []),
        (dead, [(1, 1, 30, 16, 2)]),
        (from_before_an_upgrade, [(1, 1, 0, 0, 1)]),
        (raising(UnitLost("lost")), [(1, 1, 0, 0, 0)]),
        (raising(BackPressureError(num_queued_requests=9, max_queued_requests=9)), []),
    ],
)
async def test_a_stream_counts_once_by_what_the_engine_says_or_else_by_what_passed(
    make_router: MakeRouter, script: Script, wanted: list[Any]
) -> None:
    router = await make_router(script)
    await router.http().post(CHAT, json=BODY)
    await until(lambda: len(router.book.ended) == len(wanted))
    assert [counted(entry) for entry in router.book.ended] == wanted


async def test_an_entry_says_whose_the_request_was_and_when_it_ended(make_router: MakeRouter) -> None:
    router = await make_router(complete)
    answer = await router.http().post(CHAT, json=PLAIN)
    (entry,) = router.book.ended
    assert entry.account == ("mine", "key-1", "ep-1")
    assert (entry.request_id, entry.at) == (answer.headers["x-request-id"], router.wall())
    assert counted(entry) == EXACT


async def test_a_stream_is_written_down_when_it_begins_with_what_is_known_by_then(make_router: MakeRouter) -> None:
    router = await make_router(complete)
    await router.http().post(CHAT, json=BODY)
    begun = [entry for entry in router.book.entries if entry.begun]
    assert len(begun) <= 1  # none, where all of it was there with the first bytes
    for entry in begun:
        assert (entry.number, entry.prompt_tokens, entry.requests) == (router.book.ended[0].number, 30, 0)
        assert counted(entry.given_up())[:4] == (1, 1, 30, 16)


async def test_what_is_turned_away_or_waits_in_vain_counts_nothing(make_router: MakeRouter) -> None:
    router = await make_router(forever, first_token_timeout_s=0.05, answer_timeout_s=0.05)
    assert (await router.http().post(CHAT, json=BODY | {"model": "ep-9"})).status_code == 404
    assert (await router.http().post(CHAT, json=BODY | {"temperature": 9})).status_code == 400
    router.units.running.clear()  # nobody takes the call
    assert (await router.http().post(CHAT, json=BODY)).status_code == 504
    assert router.book.entries == []


async def test_a_unit_that_is_lost_before_the_first_byte_does_not_count_twice(make_router: MakeRouter) -> None:
    router = await make_router(raising(UnitGone("gone")), raising(UnitLost("lost")), complete)
    assert (await router.http().post(CHAT, json=PLAIN)).status_code == 200
    assert [counted(entry) for entry in router.book.ended] == [EXACT]


async def test_units_that_were_all_gone_count_nothing(make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.router.call.MAX_TRIES", 2)
    router = await make_router(raising(UnitGone("gone")))
    assert (await router.http().post(CHAT, json=PLAIN)).status_code == 503
    assert router.book.entries == []


def aborted(tokens: Tokens | None) -> Script:
    """An engine that begins, and says what was taken once the call is cancelled."""

    async def script(answer: Answer) -> None:
        try:
            if tokens:
                await begin(answer)
            await asyncio.Event().wait()
        finally:
            await answer.fail(UnitLost("The request was cancelled."), tokens)

    return script


async def leave(url: str, stream: bool, called: asyncio.Event) -> None:
    async with client(url) as http:
        asking = asyncio.create_task(http.post(CHAT, json=BODY | {"stream": stream}))
        await called.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("tokens", "wanted"), [(TAKEN, [EXACT]), (None, [])])
async def test_a_caller_who_leaves_is_charged_for_what_the_engine_made(
    make_router: MakeRouter, serve: Serve, stream: bool, tokens: Tokens | None, wanted: list[Any]
) -> None:
    called = asyncio.Event()

    async def script(answer: Answer) -> None:
        called.set()
        await aborted(tokens)(answer)

    router = await make_router(script)
    async with asyncio.timeout(WAIT_S):
        await leave(serve(router.app), stream, called)
        await router.units.responses[0].cancelled.wait()
        await router.listener.settled()
    assert [counted(entry) for entry in router.book.ended] == wanted


async def test_an_engine_that_says_nothing_more_is_waited_for_a_while(
    make_router: MakeRouter, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLE_S", 0.05)
    called = asyncio.Event()

    async def script(answer: Answer) -> None:
        await begin(answer)
        called.set()
        await forever(answer)

    router = await make_router(script)
    router.units.closes_links = False
    async with asyncio.timeout(WAIT_S):
        await leave(serve(router.app), True, called)
        await until(lambda: router.book.ended)
    assert [counted(entry) for entry in router.book.ended] == [(1, 1, 30, 16, 2)]


async def test_what_waits_to_be_settled_is_bounded(
    make_router: MakeRouter, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SETTLING", 1)
    router = await make_router(forever)
    router.units.closes_links = False
    url = serve(router.app)
    async with asyncio.timeout(WAIT_S):
        for number in (1, 2):
            called = asyncio.Event()
            leaving = asyncio.create_task(leave(url, True, called))
            await until(lambda number=number: len(router.units.responses) == number)
            called.set()
            await leaving
        await until(lambda: router.book.ended)
    assert [counted(entry) for entry in router.book.ended] == [(1, 1, 0, 0, 0)]


async def test_a_caller_who_is_given_up_counts_exactly(make_router: MakeRouter) -> None:
    router = await make_router(aborted(TAKEN), between_tokens_timeout_s=0.2)
    answer = await router.http().post(CHAT, json=BODY)
    assert json.loads(answer.text.rpartition("data: ")[2])["error"]["code"] == "deadline_exceeded"
    await until(lambda: router.book.ended)
    assert [counted(entry) for entry in router.book.ended] == [EXACT]


async def test_usage_is_never_forced_onto_a_stream(make_router: MakeRouter) -> None:
    router = await make_router(complete)
    answer: httpx.Response = await router.http().post(CHAT, json=BODY)
    assert b"stream_options" not in router.units.bodies[0]
    assert "usage" not in answer.text


async def test_an_answer_that_is_there_counts_though_its_reader_is_slow() -> None:
    """Nobody has taken any of it, and the router may be killed now."""
    book, settled = Book(), list[int]()
    at, buffers = table(), Buffers({}, 1 << 20)
    (grant,) = (grant for grant in at.grants.values() if grant.key_id == "key-1")
    metered = UsageMeter(book, Clock(0)).request("req-1", grant, at.routes["ep-1"], settled.append)
    stream = Stream(b"token", buffers)
    head = {"status": 200, "content_type": "application/json"}
    for kind, payload in ((Kind.HEAD, json.dumps(head).encode()), (Kind.END, TAKEN.model_dump_json().encode())):
        stream.put(Frame(stream.token, kind, payload))
    metered.begun(stream)
    assert [counted(entry) for entry in book.entries] == [EXACT]
    metered.ended(stream, taken=True)
    assert ([counted(entry) for entry in book.entries], settled) == ([EXACT], [37])
