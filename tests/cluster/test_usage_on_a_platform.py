"""Usage comes to exactly what engines made and callers saw, whoever leaves or dies on the way."""

import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.cluster.conftest import Platform, until
from tests.cluster.test_watching import of_unit, settle
from tests.soak import record

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

REQUESTS = 30
SOAK_REQUESTS = 600
AT_ONCE = 8
LATER_S = 90
"""Until a control plane or a router that was killed is back, and has told and heard all."""
SUMS = ("requests", "partial_requests", "prompt_tokens", "completion_tokens")


class Caller:
    """Calls with a key of its own, and knows what that has to come to."""

    def __init__(self, platform: Platform, description: str):
        self._platform = platform
        self._ids = {endpoint["name"]: endpoint["id"] for endpoint in platform.endpoints()}
        issued = platform.http.post("/platform/v1/api-keys", json={"role": "inference", "description": description})
        self.key_id = issued.raise_for_status().json()["id"]
        self.http = httpx.Client(
            base_url=platform.base_url, headers={"authorization": f"Bearer {issued.json()['key']}"},
            timeout=60, trust_env=False,
        )  # fmt: skip
        until(lambda: self.http.get("/v1/models").status_code == 200, "the key to work")

    def chat(self, name: str, words: int, **fields: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": "word " * words}]
        return {"model": self._ids[name], "messages": messages, **fields}

    def seen(self, request: dict[str, Any], leave_after: int = 1 << 30) -> int:
        """How many tokens of a stream came before it ended, or the caller left."""
        count, text = 0, ""
        with self.http.stream("POST", "/v1/chat/completions", json=request) as answer:
            assert answer.status_code == 200
            try:
                for piece in answer.iter_text():
                    text += piece
                    count = text.count('"content":"word "')
                    if count >= leave_after:
                        break
            except httpx.TransportError:
                pass  # its router was killed
        return count

    def usage(self, name: str) -> dict[str, int]:
        params = {"key": self.key_id, "endpoint": self._ids[name]}
        totals = self._platform.http.get("/platform/v1/usage", params=params).raise_for_status().json()["totals"]
        return {sum_: totals[sum_] for sum_ in SUMS}


def kill(platform: Platform, title: str) -> None:
    (process,) = [process for process, text in platform.titles().items() if title in text]
    process.kill()


def all_kinds(platform: Platform, count: int, seed: int) -> dict[str, int]:
    """Plain, streamed and left requests of one engine, while the control plane is away for a part of them."""
    caller, draw = Caller(platform, "all kinds"), random.Random(seed)
    wishes = [(draw.choice("psl"), draw.randint(1, 30), draw.randint(2, 12), draw.randint(1, 3)) for _ in range(count)]
    settle(platform, "steady")
    made = {
        name: of_unit(platform, "steady", f"{name}_total") or 0.0 for name in ("prompt_tokens", "completion_tokens")
    }

    def call(wish: tuple[str, int, int, int]) -> int:
        kind, words, tokens, n = wish
        request = caller.chat("steady", words, max_tokens=tokens, n=n)
        if kind == "p":
            usage = caller.http.post("/v1/chat/completions", json=request).raise_for_status().json()["usage"]
            assert (usage["prompt_tokens"], usage["completion_tokens"]) == (words + 1, tokens * n)
        elif kind == "s":
            assert caller.seen(request | {"stream": True}) == tokens * n
        else:
            return caller.seen(request | {"stream": True, "max_tokens": 100_000}, leave_after=tokens)
        return tokens * n

    with ThreadPoolExecutor(AT_ONCE) as pool:
        half = pool.map(call, wishes[: count // 2])
        kill(platform, "ServeReplica:control_plane")
        seen = sum(half) + sum(pool.map(call, wishes[count // 2 :]))
    settle(platform, "steady")
    until(lambda: caller.usage("steady")["requests"] >= count, "usage to be complete", LATER_S)
    found = caller.usage("steady")
    engine = {name: int((of_unit(platform, "steady", f"{name}_total") or 0) - before) for name, before in made.items()}
    assert {name: found[name] for name in engine} == engine
    prompts = sum(words + 1 for _, words, _, _ in wishes)
    assert (found["requests"], found["partial_requests"], found["prompt_tokens"]) == (count, 0, prompts)
    assert found["completion_tokens"] >= seen
    return found


def test_requests_of_all_kinds_come_to_what_the_engine_made(platform: Platform) -> None:
    all_kinds(platform, REQUESTS, seed=1)


def test_of_a_killed_engine_what_callers_saw_counts_as_partial(platform: Platform) -> None:
    caller = Caller(platform, "a killed engine")
    request = caller.chat("crashing", 5, max_tokens=100_000, stream=True)
    (engine,) = platform.engine_pids("crashing")
    with ThreadPoolExecutor(4) as pool:
        streams = [pool.submit(caller.seen, request) for _ in range(4)]
        running = lambda: (of_unit(platform, "crashing", "running") or 0) >= 4  # noqa: E731
        until(running, "the streams to run")
        os.kill(engine, signal.SIGKILL)
        seen = sum(stream.result(60) for stream in streams)
    assert seen > 0
    until(lambda: caller.usage("crashing")["requests"] >= 4, "usage to be complete", LATER_S)
    wanted = {"requests": 4, "partial_requests": 4, "prompt_tokens": 4 * 6, "completion_tokens": seen}
    assert caller.usage("crashing") == wanted
    platform.wait_for("crashing", "healthy")


def test_a_killed_router_loses_no_request_that_had_ended_or_begun(platform: Platform) -> None:
    caller = Caller(platform, "a killed router")
    ended = caller.chat("steady", 3, max_tokens=4)
    for _ in range(5):
        caller.http.post("/v1/chat/completions", json=ended).raise_for_status()
    streams = caller.chat("steady", 7, max_tokens=100_000, stream=True)
    (router,) = platform.listening_routers()
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(caller.seen, streams) for _ in range(3)]
        until(lambda: (of_unit(platform, "steady", "running") or 0) >= 3, "the streams to run")
        router.kill()
        assert all(one.result(60) > 0 for one in running)
    until(lambda: platform.listening_routers() - {router}, "the next router to listen")
    until(lambda: caller.usage("steady")["requests"] >= 8, "usage to be complete", LATER_S)
    found = caller.usage("steady")
    assert (found["requests"], found["partial_requests"], found["prompt_tokens"]) == (8, 3, 5 * 4 + 3 * 8)
    assert found["completion_tokens"] >= 5 * 4 + 3  # each stream had a token when it began


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_hundreds_of_requests_come_to_what_the_engine_made(platform: Platform) -> None:
    record("usage", all_kinds(platform, SOAK_REQUESTS, seed=2))
