"""Callers who read nothing and connections that ask nothing, beside callers who chat as always."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.router.stream import BUFFERS_LIMIT_BYTES
from tests.cluster.conftest import CRASHING, DEMO, MODEL, SIMULATIONS, STEADY, WAIT_S, Platform, until
from tests.cluster.test_router import metrics
from tests.soak import record

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ORDINARY, TOKENS = 16, 50
"""Callers who read, and of each answer: a second of the simulated engine's work."""
BASE_S = 10.0
"""How long they are watched before the others come."""
FLOOD = {"name": "flood", "model": MODEL, "limits": {"max_queued": 1000}}
FLOODING = {"word": "x" * 20_000, "between_tokens_s": 0.25}
"""80 kB a second for each, so that what they may hold together is full after 17 s with 200 of them."""
TIMES_SLOWER = 3.0
LEAST_MS, LEAST_BESIDE_OTHERS_MS = 100.0, 1000.0
"""What 95 % of TTFTs and of pauses between tokens may take in any case, also where other tests need the cores."""
CONNECTION_BYTES = 512 << 10
"""Of the router's memory for each connection beside: what is being written, and what Python needs for a request."""


@dataclass
class Seen:
    """What ordinary callers have seen."""

    ttft_ms: list[float] = field(default_factory=list)
    pause_ms: list[float] = field(default_factory=list)
    broken: int = 0

    def p95(self) -> dict[str, float]:
        return {
            name: round(sorted(values)[len(values) * 95 // 100], 1)
            for name, values in (("ttft_ms", self.ttft_ms), ("pause_ms", self.pause_ms))
        }


class Trial:
    """One router, and sockets to it."""

    def __init__(self, platform: Platform):
        self._platform = platform
        self._port = platform.machine.port
        (self._router,) = platform.listening_routers()

    def request(self, name: str, max_tokens: int) -> bytes:
        body = {"model": name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": max_tokens}
        content = json.dumps(body | {"stream": True}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self._platform.key}\r\n"
            f"content-length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    async def watch(self, seconds: float) -> Seen:
        """Ordinary callers for so long."""
        seen, request, until_s = Seen(), self.request("steady", TOKENS), time.monotonic() + seconds

        async def call() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            while time.monotonic() < until_s:
                await self._chat(seen, request, reader, writer)
            writer.close()

        await asyncio.gather(*(call() for _ in range(ORDINARY)))
        return seen

    async def _chat(
        self, seen: Seen, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        last = time.perf_counter()
        writer.write(request)
        text, took = b"", seen.ttft_ms
        async with asyncio.timeout(WAIT_S):
            while not text.endswith(b"0\r\n\r\n"):
                part = await reader.read(65536)
                assert part, text
                text += part
                assert text.startswith(b"HTTP/1.1 200"), text
                took.append((time.perf_counter() - last) * 1000)
                last, took = time.perf_counter(), seen.pause_ms
        seen.broken += text.count(b'"delta"') != TOKENS or b"[DONE]" not in text

    @asynccontextmanager
    async def holding(self, slow: int, half_open: int) -> AsyncIterator[None]:
        """So many who ask for much and read nothing, and so many who do not even ask."""
        flood = self.request("flood", 10_000)
        halves = [b"", flood[:20], flood[:-20], b"GET /healthz HTTP/1.1\r\n"]
        async with AsyncExitStack() as stack:
            for sent in [flood] * slow + [halves[number % len(halves)] for number in range(half_open)]:
                caller = stack.enter_context(socket.socket())
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                caller.setblocking(False)
                await asyncio.get_running_loop().sock_connect(caller, ("127.0.0.1", self._port))
                await asyncio.get_running_loop().sock_sendall(caller, sent)
            yield

    async def run(self, slow: int, half_open: int, hold_s: float) -> dict[str, Any]:
        """What it was like without them, before or afterwards, and while they were there."""
        before = await self.watch(BASE_S)
        rss_bytes = self._router.memory_info().rss
        async with self.holding(slow, half_open):
            watched = asyncio.create_task(self.watch(hold_s))
            most_bytes = 0
            while not watched.done():
                most_bytes = max(most_bytes, self._router.memory_info().rss)
                await asyncio.sleep(0.2)
            during = watched.result()
        after = await self.watch(BASE_S)
        without = [seen.p95() for seen in (before, after)]
        return {
            "slow_readers": slow, "half_open": half_open, "answers": len(during.ttft_ms),
            "broken": before.broken + during.broken + after.broken,
            "without_p95": {name: max(p95[name] for p95 in without) for name in without[0]}, "during_p95": during.p95(),
            "router_grew_bytes": most_bytes - rss_bytes,
        }  # fmt: skip


def hold(platform: Platform, slow: int, half_open: int, hold_s: float, least_ms: float) -> dict[str, Any]:
    """A trial's figures. Nobody else noticed, the router stayed small, and in the end nothing is left."""
    flood_id = platform.endpoint("flood")["id"]
    figures = asyncio.run(Trial(platform).run(slow, half_open, hold_s))
    until(lambda: metrics(platform, "modelunit_running_requests", flood_id) == [0.0], "the slow ones to be gone")
    assert figures["answers"] >= ORDINARY * hold_s / 4  # of a second each
    assert figures["broken"] == 0
    for name, without_ms in figures["without_p95"].items():
        assert figures["during_p95"][name] <= max(least_ms, TIMES_SLOWER * without_ms), figures
    assert figures["router_grew_bytes"] < BUFFERS_LIMIT_BYTES + (slow + half_open) * CONNECTION_BYTES, figures
    return figures


@pytest.fixture
def flooded(platform: Platform) -> Iterator[None]:
    """An endpoint whose engine makes much of little."""
    platform.deploy(DEMO, STEADY, CRASHING, FLOOD, simulations=SIMULATIONS | {"flood": FLOODING})
    platform.wait_for("flood", "healthy")
    yield
    platform.deploy(DEMO, STEADY, CRASHING, simulations=SIMULATIONS)


@pytest.mark.usefixtures("flooded")
def test_a_few_of_them_disturb_nobody(platform: Platform) -> None:
    hold(platform, slow=10, half_open=10, hold_s=10, least_ms=LEAST_BESIDE_OTHERS_MS)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("flooded")
def test_hundreds_of_them_disturb_nobody(platform: Platform) -> None:
    # Longer than a body may take.
    record("slow_readers", hold(platform, slow=200, half_open=200, hold_s=75, least_ms=LEAST_MS))
