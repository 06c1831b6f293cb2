"""Load by the real client on a chat server of which everything is known."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from app.bench import load
from app.bench.load import PROMPTS_PER_LEVEL, Server, figures, measure

KEY = "mu-benchmark"
MODEL = "ep-1"
FIRST_TOKEN_S = 0.1
BETWEEN_TOKENS_S = 0.002
MOST_AT_ONCE = 8

RESULT: dict[str, Any] = {
    "failed": 0, "errors": ["", ""], "output_lens": [128, 128],
    "output_throughput": 120, "median_ttft_ms": 300.5, "p99_ttft_ms": 400.0, "median_tpot_ms": 40.25,
}  # fmt: skip
"""What the client writes, as far as we read it."""


class ChatServer:
    """Answers as many words as are asked for, to so many at once, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.most_at_once = 0
        self._at_once = 0

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append((request.headers["authorization"], body))
        if self._at_once == MOST_AT_ONCE:
            return JSONResponse({"error": {"message": "no"}}, 503)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        return StreamingResponse(self._events(body["max_completion_tokens"]), media_type="text/event-stream")

    async def _events(self, count: int) -> AsyncIterator[str]:
        try:
            await asyncio.sleep(FIRST_TOKEN_S)
            for _ in range(count):
                yield _event(choices=[{"index": 0, "delta": {"content": "word "}}])
                await asyncio.sleep(BETWEEN_TOKENS_S)
        finally:
            self._at_once -= 1
        yield _event(choices=[], usage={"prompt_tokens": 128, "completion_tokens": count})
        yield "data: [DONE]\n\n"


def _event(**fields: object) -> str:
    return f"data: {json.dumps(fields)}\n\n"


@pytest.fixture
def chat() -> ChatServer:
    return ChatServer()


@pytest.fixture
def base_url(chat: ChatServer) -> Iterator[str]:
    app = Starlette(routes=[Route("/v1/chat/completions", chat.chat, methods=["POST"])])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_the_client_measures_what_the_server_does(
    base_url: str, chat: ChatServer, demo_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[dict[str, Any]] = []
    monkeypatch.setattr(load, "figures", lambda result: results.append(result) or figures(result))
    server = Server(base_url, MODEL, KEY, demo_model_folder)
    # In one go, since the client takes long to start: the last level is more than the server takes.
    with pytest.raises(RuntimeError, match="requests failed; first error: Service Unavailable"):
        measure(server, (1, MOST_AT_ONCE, 16))
    assert len(results) == 3
    by_level = {level: figures(result) for level, result in zip((1, MOST_AT_ONCE), results, strict=False)}
    for measured in by_level.values():
        assert 1000 * FIRST_TOKEN_S * 0.95 < measured["ttft_p50_ms"] <= measured["ttft_p99_ms"] < 5000
        assert 1000 * BETWEEN_TOKENS_S * 0.75 < measured["tpot_ms"] < 100
        assert 0 < measured["output_tokens_per_s"] < 8 / BETWEEN_TOKENS_S
    assert by_level[8]["output_tokens_per_s"] > by_level[1]["output_tokens_per_s"]
    assert chat.most_at_once == MOST_AT_ONCE
    assert len(chat.asked) >= sum(PROMPTS_PER_LEVEL.values())
    wanted = {"model": MODEL, "max_completion_tokens": 128, "temperature": 0, "ignore_eos": True, "stream": True}
    for key, body in chat.asked:
        assert key == f"Bearer {KEY}"
        assert wanted.items() <= body.items()


def test_figures_have_our_names() -> None:
    assert figures(RESULT) == {
        "output_tokens_per_s": 120.0, "ttft_p50_ms": 300.5, "ttft_p99_ms": 400.0, "tpot_ms": 40.25,
    }  # fmt: skip


@pytest.mark.parametrize("errors", [["", "Bad Gateway"], ["", ""]])
def test_a_failed_request_gives_no_figures(errors: list[str]) -> None:
    with pytest.raises(RuntimeError, match=r"1 requests failed; first error: (Bad Gateway|no reason given)"):
        figures({**RESULT, "failed": 1, "errors": errors, "output_lens": [128, 0]})


def test_an_answer_that_broke_off_is_a_failed_request() -> None:
    with pytest.raises(RuntimeError, match="1 requests failed: their answers ended before 128 tokens"):
        figures({**RESULT, "output_lens": [128, 5]})
