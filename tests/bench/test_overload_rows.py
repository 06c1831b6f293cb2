"""The rows of overload, on a platform that is played: it takes so many requests at once and refuses the others."""

import json
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from app.bench import overload
from app.bench.overload import CALLERS, ROUTER, RUNNING, TOKENS, measure_overload
from app.bench.stage import Stage

MIB = 1 << 20


class PlayedStage(Stage):
    """Takes twice RUNNING at once; what each token takes and what the router holds is told."""

    def __init__(self) -> None:
        self.first = {"name": "demo", "model": "the-model"}
        self.http = httpx.Client(base_url="http://stage", transport=httpx.MockTransport(self._answer))
        self.places = threading.Semaphore(2 * RUNNING)
        self.token_s = 0.001
        self.crowded_token_s = 0.001
        self.tokens = TOKENS
        self.held_bytes = iter((100 * MIB, 103 * MIB))
        self.asking = 0

    def deploy(self, *endpoints: Any, **args: Any) -> None:
        assert [endpoint["name"] for endpoint in endpoints] == ["demo", "crowded"]

    def wait_for(self, name: str, *states: str) -> dict[str, Any]:
        return {"id": f"id-{name}"}

    def processes(self) -> list[Any]:
        memory = lambda: SimpleNamespace(rss=next(self.held_bytes))  # noqa: E731
        return [
            SimpleNamespace(cmdline=lambda: ["ray::IDLE"]),
            SimpleNamespace(cmdline=lambda: [f"{ROUTER}:Router"], memory_info=memory),
        ]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        assert json.loads(request.content)["stream"]
        if not self.places.acquire(blocking=False):
            return httpx.Response(429, headers={"retry-after": "5"})
        return httpx.Response(200, stream=Tokens(self))


class Tokens(httpx.SyncByteStream):
    """A stream of events, one token at a time."""

    def __init__(self, stage: PlayedStage):
        self._stage = stage

    def __iter__(self) -> Iterator[bytes]:
        self._stage.asking += 1
        for _ in range(self._stage.tokens):
            time.sleep(self._stage.crowded_token_s if self._stage.asking > RUNNING else self._stage.token_s)
            yield b"data: {}\n\n"
        yield b"data: [DONE]\n\n"

    def close(self) -> None:
        self._stage.asking -= 1
        self._stage.places.release()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> PlayedStage:
    monkeypatch.setattr(overload, "AGAIN_S", 0.005)
    assert CALLERS > 2 * RUNNING
    return PlayedStage()


def test_accepted_answers_that_get_slower_are_seen_and_so_is_memory(stage: PlayedStage) -> None:
    stage.token_s, stage.crowded_token_s = 0.002, 0.02
    figures = measure_overload(stage, calm_s=0.3, flood_s=1.0)
    assert figures["overload_tpot_ratio"][0] > 2
    assert figures["overload_router_growth_bytes"] == [3 * MIB]
    assert 0 <= figures["overload_recovery_s"][0] < 5


def test_an_accepted_answer_that_is_cut_is_no_result(stage: PlayedStage) -> None:
    stage.tokens = TOKENS - 1
    with pytest.raises(RuntimeError, match="accepted request ended with 200 after"):
        measure_overload(stage, calm_s=0.1, flood_s=0.1)


def test_a_flood_that_is_taken_whole_is_no_overload(stage: PlayedStage) -> None:
    stage.places = threading.Semaphore(CALLERS)
    with pytest.raises(RuntimeError, match="nobody was refused"):
        measure_overload(stage, calm_s=0.1, flood_s=0.1)
