"""From real engine processes through a real router into its spool: usage comes to what engines made and callers saw.

The same on a whole platform: tests/cluster/test_usage_on_a_platform.py.
"""

import asyncio
import os
import random
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from app.core.usage import Sums
from app.router.deployment import RouterArgs, asgi
from app.router.directory import Directory
from app.router.figures import Figures
from app.router.limits import Limits
from app.router.stream import TokenListener
from app.router.usage import UsageMeter
from app.router.usage_sender import UsageSender
from app.router.usage_spool import UsageSpool
from app.store.file_store import FileStore
from app.store.layout import SNAPSHOT
from app.unit.engine_client import EngineClient
from tests.router.tables import KEY, NoControlPlane, Others, table
from tests.router.units import WAIT_S, Response, until
from tests.router.usage_takers import ControlPlane, kill
from tests.soak import record
from tests.unit.conftest import module_run_dir, start_engine  # noqa: F401 (fixtures)
from tests.unit.engines import StartEngine

REQUESTS, SOAK_REQUESTS = 120, 3000
AT_ONCE = 16
CHAT = "/v1/chat/completions"
TEXT = b'"content":"word "'
Serve = Callable[[ASGIApp], str]


class Trial:
    """One router at a time, in front of one engine at a time, and a control plane that is away now and then."""

    def __init__(self, folder: Path, serve: Serve):
        self._folder = folder
        self._serve = serve
        self.control_plane = ControlPlane()
        self.engine: EngineClient
        self.calls: list[Response] = []
        self._started = 0

    async def start_router(self) -> None:
        store = FileStore(self._folder / "objects")
        store.write(SNAPSHOT, table().model_dump_json().encode())
        directory = Directory(
            store, NoControlPlane(), lambda _: SimpleNamespace(chat=SimpleNamespace(remote=self._call))
        )
        await directory.load_snapshot()
        self._started += 1
        figures = Figures(f"router-{self._started}")
        self.listener = TokenListener()
        await self.listener.start("127.0.0.1")
        self.spool = UsageSpool(self._folder / "usage", figures.router, figures.spool, file_bytes=8000)
        self.sender = UsageSender(self.spool, self.control_plane)
        meter = UsageMeter(self.spool)
        url = "http://127.0.0.1:1"
        self.url = self._serve(asgi(RouterArgs(), directory, self.listener, url, figures, Limits(), Others(), meter))

    def kill_router(self) -> None:
        """Its locks are gone, and whatever it still would write it cannot."""
        kill(self.spool)
        self.spool.write = lambda entry: None  # type: ignore[method-assign]

    def _call(self, token: bytes, router: str, request_id: str, body: bytes) -> Response:
        running = asyncio.Event()
        running.set()
        self.calls.append(Response(running, partial(self.engine.chat, token, router, request_id, body)))
        return self.calls[-1]

    async def ask(self, words: int, *, leave_after: int | None = None, **fields: Any) -> int:
        """How many tokens came, until the end or until the caller left."""
        request = {"model": "ep-1", "messages": [{"role": "user", "content": "word " * words}], **fields}
        async with httpx.AsyncClient(
            base_url=self.url, headers={"authorization": f"Bearer {KEY}"}, timeout=WAIT_S, trust_env=False
        ) as http:
            if not fields.get("stream"):
                return int((await http.post(CHAT, json=request)).json()["usage"]["completion_tokens"])
            text = b""
            async with http.stream("POST", CHAT, json=request) as answer:
                async for part in answer.aiter_raw():
                    text += part
                    if leave_after is not None and text.count(TEXT) >= leave_after:
                        break
            return text.count(TEXT)

    async def send(self) -> Sums:
        """All that the control plane has once it is back, and the router knows who has left."""
        await until(lambda: not self.spool._open)
        await self.listener.settled()
        self.control_plane.away = False
        await self.sender.step()
        await self.sender.step()
        (sums,) = self.control_plane.sums.values()
        return sums


@pytest.fixture
async def trial(tmp_path: Path, serve: Serve, start_engine: StartEngine) -> Trial:  # noqa: F811
    trial = Trial(tmp_path, serve)
    trial.engine = await start_engine(between_tokens_s=0.001)
    await trial.start_router()
    return trial


async def all_kinds(trial: Trial, count: int, seed: int) -> Sums:
    draw, room = random.Random(seed), asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> tuple[int, int]:
        """The tokens of a request's prompt, and those that came of its answer."""
        kind, words, tokens, n = draw.choice("psl"), draw.randint(1, 20), draw.randint(2, 9), draw.randint(1, 3)
        async with room:
            if number % 7 == 0:
                trial.control_plane.away = draw.random() < 0.5
                trial.control_plane.answers_lost = draw.randint(0, 1)
                await trial.sender.step()
            if kind == "l":
                endless = {"stream": True, "max_tokens": 100_000, "n": n}
                return words + 1, await trial.ask(words, leave_after=tokens, **endless)
            seen = await trial.ask(words, stream=kind == "s", max_tokens=tokens, n=n)
            assert seen == tokens * n
            return words + 1, seen

    known = await asyncio.gather(*map(one, range(count)))
    sums = await trial.send()
    engine = await trial.engine.stats(WAIT_S)
    assert (sums.requests, sums.partial_requests) == (engine.requests, 0) == (count, 0)
    assert sums.prompt_tokens == engine.prompt_tokens == sum(prompt for prompt, _ in known)
    assert sums.completion_tokens == engine.completion_tokens >= sum(seen for _, seen in known)
    return sums


async def test_requests_of_all_kinds_come_to_what_the_engine_made(trial: Trial) -> None:
    await all_kinds(trial, REQUESTS, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_thousands_of_requests_come_to_what_the_engine_made(trial: Trial) -> None:
    record("usage", (await all_kinds(trial, SOAK_REQUESTS, seed=2)).model_dump())


async def test_of_a_killed_engine_what_callers_saw_counts_as_partial(trial: Trial) -> None:
    streams = [asyncio.create_task(trial.ask(5, stream=True, max_tokens=100_000)) for _ in range(4)]
    async with asyncio.timeout(WAIT_S):
        while (await trial.engine.stats(WAIT_S)).running < len(streams):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    os.kill(trial.engine.pid, signal.SIGKILL)
    seen = await asyncio.gather(*streams)
    assert all(seen)
    sums = await trial.send()
    assert (sums.requests, sums.partial_requests) == (4, 4)
    assert (sums.prompt_tokens, sums.completion_tokens) == (4 * 6, sum(seen))


async def test_a_killed_router_loses_no_request_that_had_ended_or_begun(trial: Trial) -> None:
    trial.control_plane.away = True
    ended = sum([await trial.ask(3, max_tokens=4) for _ in range(5)])
    streams = [asyncio.create_task(trial.ask(7, stream=True, max_tokens=100_000)) for _ in range(3)]
    begun = lambda: len(trial.spool._open) == len(streams)  # noqa: E731
    await until(begun)
    trial.kill_router()
    for stream in streams:
        stream.cancel()
    await trial.start_router()
    sums = await trial.send()
    assert (sums.requests, sums.partial_requests, sums.prompt_tokens) == (8, 3, 5 * 4 + 3 * 8)
    assert sums.completion_tokens >= ended + len(streams)  # each had a token when it began
    assert list((trial._folder / "usage").iterdir()) == []
