import json
import logging
import re
from collections.abc import Awaitable, Callable

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message

from app.core.errors import InvalidField, TooLarge, TooManyRequests, Unauthorized, Unavailable
from app.web import EXCEPTION_HANDLERS, ErrorBoundary, error_event, read_body, request_id

SECRET = "/etc/secret-path"
LIMIT_BYTES = 10


async def broken(_: Request) -> Response:
    raise ValueError(SECRET)


async def busy(_: Request) -> Response:
    raise Unavailable("No unit is free.")


async def limited(_: Request) -> Response:
    raise TooManyRequests("Slow down.")


async def stranger(_: Request) -> Response:
    raise Unauthorized("No key.")


async def who(request: Request) -> Response:
    return JSONResponse(request_id(request.scope))


async def size(request: Request) -> Response:
    return JSONResponse(len(await read_body(request.scope, request.receive, LIMIT_BYTES)))


ROUTES = [Route(f"/{handler.__name__}", handler) for handler in (broken, busy, limited, stranger, who)]
APP = Starlette(
    routes=[*ROUTES, Route("/size", size, methods=["POST"])],
    middleware=[Middleware(ErrorBoundary)],
    exception_handlers=EXCEPTION_HANDLERS,
)


@pytest.fixture
def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url="http://test")


async def test_an_unexpected_error_says_nothing_of_itself(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "ray.serve"):
        logging.getLogger("ray.serve").addHandler(caplog.handler)
        answer = await client.get("/broken")
        logging.getLogger("ray.serve").removeHandler(caplog.handler)
    assert answer.status_code == 500
    assert SECRET not in answer.text
    identity = answer.headers["x-request-id"]
    assert identity in answer.json()["error"]["message"]  # so that the operator can find it:
    assert identity in caplog.text
    assert SECRET in caplog.text


async def test_expected_errors_are_rendered_with_their_headers(client: httpx.AsyncClient) -> None:
    answer = await client.get("/busy")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["error"]["message"] == "No unit is free."
    assert (await client.get("/limited")).headers["retry-after"] == "1"
    answer = await client.get("/stranger")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "retry-after" not in answer.headers


async def test_starlettes_own_errors_have_our_form(client: httpx.AsyncClient) -> None:
    answer = await client.get("/nowhere")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    answer = await client.post("/who")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")


GIVEN = "req-" + "0123456789ab" * 2


@pytest.mark.parametrize("name", ["x-request-id", "x-client-request-id", "x-modelunit-request-id"])
async def test_what_callers_call_a_request_is_not_its_id(client: httpx.AsyncClient, name: str) -> None:
    answers = [await client.get("/who", headers={name: GIVEN}) for _ in range(2)]
    ids = {answer.json() for answer in answers}
    assert ids == {answer.headers["x-request-id"] for answer in answers}
    assert len(ids - {GIVEN}) == 2
    assert all(re.fullmatch("req-[0-9a-f]{24}", identity) for identity in ids)


@pytest.mark.parametrize(
    "given", [GIVEN, None, "", "req-1", GIVEN.upper(), f"{GIVEN}0", f"{GIVEN} ", "a b", "é", "<script>"]
)
async def test_the_id_that_a_router_gave_stays_if_it_is_one(given: str | None) -> None:
    app = Starlette(routes=ROUTES, middleware=[Middleware(ErrorBoundary, behind_router=True)])
    headers = {} if given is None else {"x-modelunit-request-id": given.encode(), "x-request-id": "req-" + "f" * 24}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        identity = (await client.get("/who", headers=headers)).headers["x-request-id"]
    assert re.fullmatch("req-[0-9a-f]{24}", identity)
    assert (identity == given) == (given == GIVEN)
    assert identity != "req-" + "f" * 24


async def test_after_the_answer_began_no_second_one_is_sent() -> None:
    async def half(scope: object, receive: object, send: Callable[[Message], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise InvalidField("too late", "n")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(InvalidField):
        await ErrorBoundary(half)({"type": "http", "headers": []}, receiver(), send)
    assert [message.get("status") for message in sent] == [200]


def receiver(*chunks: bytes, complete: bool = True) -> Callable[[], Awaitable[Message]]:
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    if complete and messages:
        messages[-1]["more_body"] = False
    messages.append({"type": "http.disconnect"})
    remaining = iter(messages)

    async def receive() -> Message:
        return next(remaining)

    return receive


async def test_a_body_at_the_limit_is_read(client: httpx.AsyncClient) -> None:
    assert (await client.post("/size", content=b"x" * LIMIT_BYTES)).json() == LIMIT_BYTES
    assert (await client.post("/size", content=b"")).json() == 0
    scope = {"headers": []}
    assert await read_body(scope, receiver(b"abc", b"", b"defghij"), LIMIT_BYTES) == b"abcdefghij"


async def test_a_body_over_the_limit_is_refused_however_it_comes(client: httpx.AsyncClient) -> None:
    answer = await client.post("/size", content=b"x" * (LIMIT_BYTES + 1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    for headers in ([], [(b"content-length", b"3")], [(b"content-length", b"many")]):
        with pytest.raises(TooLarge):
            await read_body({"headers": headers}, receiver(b"x" * 6, b"x" * 6, b"x"), LIMIT_BYTES)


async def test_a_declared_length_over_the_limit_is_refused_before_reading() -> None:
    async def receive() -> Message:
        raise AssertionError("read although the length was known")

    with pytest.raises(TooLarge):
        await read_body({"headers": [(b"content-length", b"11")]}, receive, LIMIT_BYTES)


async def test_a_caller_who_leaves_in_mid_body_ends_the_reading() -> None:
    with pytest.raises(Exception, match="left before the body was complete"):
        await read_body({"headers": []}, receiver(b"abc", complete=False), LIMIT_BYTES)


def test_an_error_event_is_one_sse_event_without_done() -> None:
    event = error_event(Unavailable("Two\nlines."))
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    assert b"[DONE]" not in event
    assert json.loads(event[6:])["error"]["type"] == "unavailable_error"
