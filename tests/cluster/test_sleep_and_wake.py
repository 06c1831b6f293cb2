"""Endpoints that sleep and wake on a real cluster, and lose nothing on the way down or up."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.conftest import CRASHING, DEMO, MODEL, SIMULATIONS, STEADY, Platform, until
from tests.soak import record

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

IDLE_S = 10
START_S = 90
"""For a unit on a small machine that is busy."""
AT_ONCE = 50
FALLS = 2
SOAK_FALLS = 200
SOAK_SLEEPERS = 4
LATEST_FALL_S = 4.0
"""After the time that is set: by then it sleeps."""
TOKENS = 3
STREAMS, STREAM_TOKENS = 8, 500
SIMULATION = {"between_tokens_s": 0.05}
PAIR = {"idle_to_zero_s": 300, "target_concurrency": 4}


def sleeper(name: str, **scale: Any) -> dict[str, Any]:
    wish = {"min_units": 0, "max_units": 1, "idle_to_zero_s": IDLE_S, "drain_s": 60} | scale
    return {"name": name, "model": MODEL, "scale": wish}


def deploy(platform: Platform, *endpoints: dict[str, Any], **simulations: dict[str, Any]) -> None:
    """Beside those that are always there; what was there before and is not among them goes."""
    played = SIMULATIONS | {endpoint["name"]: SIMULATION for endpoint in endpoints} | simulations
    platform.deploy(DEMO, STEADY, CRASHING, *endpoints, simulations=played)
    kept = {endpoint["name"] for endpoint in (DEMO, STEADY, CRASHING, *endpoints)}
    until(lambda: {endpoint["name"] for endpoint in platform.endpoints()} == kept, "the endpoints that were deployed")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file; while it is there, no unit of "moody" starts."""
    return tmp_path_factory.mktemp("moody") / "broken"


@pytest.fixture(scope="module")
def ids(platform: Platform, broken: Path) -> Iterator[dict[str, str]]:
    """Of an endpoint for each test, by name; all fall asleep while the first test runs."""
    names = ("sleeper", "hurried", "called-by-hand", "moody")
    moody = {"fail_start": "no memory is left", "fail_start_while": str(broken)}
    deploy(platform, *map(sleeper, names), sleeper("pair", max_units=2, **PAIR), moody=moody)
    yield {name: platform.wait_for(name, "healthy", "sleeping")["id"] for name in (*names, "pair")}
    deploy(platform)


class Caller:
    """Somebody who streams an answer."""

    def __init__(self, platform: Platform, endpoint_id: str, max_tokens: int = TOKENS):
        self._platform = platform
        messages = [{"role": "user", "content": "hi"}]
        self._body = {"model": endpoint_id, "messages": messages, "max_tokens": max_tokens, "stream": True}
        self.text = ""
        self.first_byte = threading.Event()

    def ask(self, **headers: str) -> httpx.Response:
        """Read the answer to its end."""
        key = f"Bearer {self._platform.key}"
        with (
            httpx.Client(base_url=self._platform.base_url, timeout=START_S + 60, trust_env=False) as client,
            client.stream(
                "POST", "/v1/chat/completions", json=self._body, headers={"authorization": key, **headers}
            ) as answer,
        ):
            for piece in answer.iter_text():
                self.text += piece
                self.first_byte.set()
        return answer

    @property
    def complete(self) -> bool:
        """Whether every token came, and the end."""
        events = [line.removeprefix("data: ") for line in self.text.splitlines() if line.startswith("data: ")]
        made = [event for event in events[:-1] if json.loads(event)["choices"][0]["delta"]["content"]]
        return len(made) == self._body["max_tokens"] and events[-1] == "[DONE]"


def running_units(platform: Platform, name: str) -> int:
    return int(platform.endpoint(name)["units"]["running"])


def test_many_first_requests_at_once_are_one_start_and_as_many_answers(platform: Platform, ids: dict[str, str]) -> None:
    platform.wait_until_asleep("sleeper")
    started = platform.units_started(ids["sleeper"])
    callers = [Caller(platform, ids["sleeper"]) for _ in range(AT_ONCE)]
    together = threading.Barrier(AT_ONCE)

    def ask(caller: Caller) -> int:
        together.wait(30)
        return caller.ask().status_code

    with ThreadPoolExecutor(AT_ONCE) as threads:
        statuses = list(threads.map(ask, callers))
    assert Counter(statuses) == {200: AT_ONCE}
    assert all(caller.complete for caller in callers)
    assert platform.units_started(ids["sleeper"]) == started + 1


def test_who_does_not_wait_is_told_when_to_come_back_and_finds_it_awake(
    platform: Platform, ids: dict[str, str]
) -> None:
    platform.wait_until_asleep("hurried")
    refused = Caller(platform, ids["hurried"]).ask(**{"x-modelunit-wake": "fail"})
    assert refused.status_code == 503
    assert 1 <= int(refused.headers["retry-after"]) <= START_S
    until(lambda: running_units(platform, "hurried") == 1, "a unit", START_S)
    caller = Caller(platform, ids["hurried"])
    assert caller.ask(**{"x-modelunit-wake": "fail"}).status_code == 200
    assert caller.complete


def test_one_that_is_woken_by_hand_wakes(platform: Platform, ids: dict[str, str]) -> None:
    platform.wait_until_asleep("called-by-hand")
    assert platform.http.post(f"/platform/v1/endpoints/{ids['called-by-hand']}:wake").status_code == 202
    until(lambda: running_units(platform, "called-by-hand") == 1, "a unit", START_S)


def test_who_waits_for_a_wake_that_fails_is_told_in_the_engines_own_words(
    platform: Platform, ids: dict[str, str], broken: Path
) -> None:
    platform.wait_until_asleep("moody")
    broken.touch()
    callers = [Caller(platform, ids["moody"]) for _ in range(3)]
    with ThreadPoolExecutor(len(callers)) as threads:
        answers = list(threads.map(Caller.ask, callers))
    for caller, answer in zip(callers, answers, strict=True):
        assert answer.status_code == 503 or caller.text.startswith(": waking")  # a heartbeat came before the bad news
        assert "no memory is left" in caller.text
        assert "[DONE]" not in caller.text
    # Serve tries again by itself, and while it does the endpoint says so.
    until(lambda: "no memory is left" in platform.endpoint("moody")["reason"], "the reason to be told", START_S)
    broken.unlink()
    platform.wait_for("moody", "healthy", "sleeping")
    caller = Caller(platform, ids["moody"])
    assert caller.ask().status_code == 200
    assert caller.complete


def around_the_fall(platform: Platform, endpoint_id: str, offsets_s: list[float]) -> Counter[str]:
    """Ask again so long after the last answer plus IDLE_S, each time; what became of these requests."""
    total: Counter[str] = Counter()
    Caller(platform, endpoint_id).ask()
    for offset_s in offsets_s:
        time.sleep(IDLE_S + offset_s)
        caller, began = Caller(platform, endpoint_id), time.monotonic()
        answer = caller.ask()
        took_s = time.monotonic() - began
        total["requests"] += 1
        total["answered"] += answer.status_code == 200 and caller.complete
        total["found_it_awake"] += took_s < 1
    return total


def test_a_request_around_the_fall_to_sleep_is_not_lost(platform: Platform, ids: dict[str, str]) -> None:
    offsets_s = [LATEST_FALL_S * number / (FALLS - 1) for number in range(FALLS)]
    total = around_the_fall(platform, ids["sleeper"], offsets_s)
    assert total["answered"] == total["requests"] == FALLS
    assert total["found_it_awake"] < FALLS  # or it never fell


def test_a_unit_that_goes_while_both_stream_loses_no_token(platform: Platform, ids: dict[str, str]) -> None:
    callers = [Caller(platform, ids["pair"], STREAM_TOKENS) for _ in range(2 * STREAMS)]
    with ThreadPoolExecutor(len(callers)) as threads:
        first = [threads.submit(caller.ask) for caller in callers[:STREAMS]]  # more than one unit is to have
        until(lambda: running_units(platform, "pair") == 2, "two units", START_S)
        second = [threads.submit(caller.ask) for caller in callers[STREAMS:]]  # these go to whichever has less to do
        assert all(caller.first_byte.wait(30) for caller in callers)
        deploy(platform, sleeper("pair", max_units=1, **PAIR))
        until(lambda: running_units(platform, "pair") == 1, "a unit to go")
        under_way = [answer for answer in second if not answer.done()]
        assert len(under_way) == STREAMS
        assert len(platform.engine_pids("pair")) == 2  # the one that goes has something to finish
        statuses = [answer.result().status_code for answer in (*first, *second)]
    assert Counter(statuses) == {200: 2 * STREAMS}
    assert all(caller.complete for caller in callers)
    until(lambda: len(platform.engine_pids("pair")) == 1, "the other one to end")


@pytest.mark.soak
@pytest.mark.timeout(5400)
def test_requests_around_many_falls_are_not_lost(platform: Platform) -> None:
    names = [f"sleeper-{number}" for number in range(SOAK_SLEEPERS)]
    deploy(platform, *map(sleeper, names))
    draws = random.Random(0)
    trials = [
        (
            platform.wait_for(name, "healthy", "sleeping")["id"],
            [draws.uniform(-0.5, LATEST_FALL_S) for _ in range(SOAK_FALLS // SOAK_SLEEPERS)],
        )
        for name in names
    ]
    with ThreadPoolExecutor(SOAK_SLEEPERS) as threads:
        totals = threads.map(lambda trial: around_the_fall(platform, *trial), trials)
        total = sum(totals, Counter[str]())
    record("falls_to_sleep", total)
    deploy(platform)
    assert total["answered"] == total["requests"] == SOAK_FALLS
    assert 0 < total["found_it_awake"] < SOAK_FALLS
