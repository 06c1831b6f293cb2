"""What callers and operators see when parts die."""

import os
import re
import signal
import threading
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.cluster.conftest import Platform, until
from tests.soak import record

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SOAK_ROUNDS = 50
HELD_TOKENS = 250
"""Five seconds of the simulated engine's work."""
LATE_TOKENS = 3


def body(platform: Platform, name: str, max_tokens: int, stream: bool) -> dict[str, Any]:
    return {
        "model": platform.endpoint(name)["id"],
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": max_tokens,
        "stream": stream,
    }


def complete(answer: httpx.Response) -> bool:
    return answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] in (LATE_TOKENS, HELD_TOKENS)


def kill_under_load(platform: Platform) -> dict[str, int]:
    """Kill an engine under eight streams and a request without a byte, then send another; what became of them."""
    request = body(platform, "crashing", 10_000, stream=True)
    texts = [""] * 8
    flowing = [threading.Event() for _ in texts]

    def read(index: int) -> None:
        with platform.http.stream("POST", "/v1/chat/completions", json=request) as answer:
            assert answer.status_code == 200
            for piece in answer.iter_text():
                texts[index] += piece
                flowing[index].set()

    threads = [threading.Thread(target=read, args=(index,)) for index in range(len(texts))]
    for thread in threads:
        thread.start()
    assert all(event.wait(30) for event in flowing)
    held = body(platform, "crashing", HELD_TOKENS, stream=False)  # an answer that comes whole has no byte till its end
    answers: list[httpx.Response] = []

    def wait() -> None:
        answers.append(platform.http.post("/v1/chat/completions", json=held))

    waits = threading.Thread(target=wait)
    waits.start()
    under_way = rf'modelunit_running_requests{{[^}}]*endpoint="{held["model"]}"[^}}]*}} {len(texts) + 1}(\.0)?\n'
    until(lambda: re.search(under_way, platform.http.get("/metrics").text), "the held request to be sent")
    seen = texts[0].count("data: ")
    until(lambda: texts[0].count("data: ") > seen + HELD_TOKENS / 5, "the engine to work on it")
    victims = platform.engine_pids("crashing")
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    assert not answers  # the one engine that had it is dead: whoever answers it was asked anew
    waiting = body(platform, "crashing", LATE_TOKENS, stream=False)
    late = platform.http.post("/v1/chat/completions", json=waiting)  # no byte yet: it waits for the next unit
    for thread in (*threads, waits):
        thread.join(30)
        assert not thread.is_alive()
    platform.wait_for("crashing", "healthy")
    assert not set(platform.engine_pids("crashing")) & set(victims)
    return {
        "streams": len(texts),
        "ended_with_an_error_event": sum('"error"' in text.rstrip().splitlines()[-1] for text in texts),
        "ended_with_done": sum("[DONE]" in text for text in texts),
        "without_a_byte": 2,
        "answered_by_the_next_unit": sum(complete(answer) for answer in (late, *answers)),
    }


LOSSLESS = {
    "streams": 8,
    "ended_with_an_error_event": 8,
    "ended_with_done": 0,
    "without_a_byte": 2,
    "answered_by_the_next_unit": 2,
}


def test_killing_an_engine_ends_its_streams_with_an_error_and_the_endpoint_recovers(platform: Platform) -> None:
    assert kill_under_load(platform) == LOSSLESS
    kinds = platform.events("crashing")
    assert kinds[-2:] == ["abnormal", "healthy"]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killing_engines_again_and_again(platform: Platform) -> None:
    total: Counter[str] = Counter(rounds=SOAK_ROUNDS)
    for _ in range(SOAK_ROUNDS):
        total.update(kill_under_load(platform))
    record("engine_kills", total)
    assert total == Counter(rounds=SOAK_ROUNDS, **{name: count * SOAK_ROUNDS for name, count in LOSSLESS.items()})


def test_a_caller_that_leaves_frees_the_real_engine(platform: Platform) -> None:
    request = body(platform, "demo", 2000, stream=True) | {"ignore_eos": True}
    for _ in range(4):
        with platform.http.stream("POST", "/v1/chat/completions", json=request) as answer:
            next(answer.iter_bytes())
    pids = platform.engine_pids("demo")

    def quiet() -> bool:
        def ticks() -> int:
            return sum(sum(map(int, open(f"/proc/{pid}/stat").read().split()[13:15])) for pid in pids)

        before = ticks()
        threading.Event().wait(1.0)
        return ticks() - before < 20  # hundredths of a second; four running requests take all of it

    until(quiet, "the engine to have nothing to do")


def test_revoking_a_key_stops_it_within_a_second(platform: Platform) -> None:
    issued = platform.http.post("/platform/v1/api-keys", json={"description": "short-lived"}).json()
    with httpx.Client(base_url=platform.base_url, headers={"authorization": f"Bearer {issued['key']}"}) as client:
        until(lambda: client.get("/v1/models").status_code == 200, "the key to work", wait_s=1)
        assert client.get("/platform/v1/endpoints").status_code == 403
        assert platform.http.delete(f"/platform/v1/api-keys/{issued['id']}?confirm=DELETE").status_code == 204
        until(lambda: client.get("/v1/models").status_code == 401, "the key to stop", wait_s=1)


def test_a_member_who_is_taken_away_is_out_within_a_second(platform: Platform) -> None:
    control = "/platform/v1"
    member = platform.http.post(f"{control}/members", json={"name": "ann", "role": "developer"}).json()["id"]
    key = platform.http.post(f"{control}/api-keys", json={"role": "developer", "member": member}).json()["key"]
    with httpx.Client(base_url=platform.base_url, headers={"authorization": f"Bearer {key}"}) as client:
        until(lambda: client.get("/v1/models").status_code == 200, "the key to work", wait_s=1)
        assert client.get(f"{control}/endpoints").status_code == 200
        assert platform.http.patch(f"{control}/members/{member}", json={"role": "inference"}).status_code == 200
        assert client.get(f"{control}/endpoints").status_code == 403
        assert platform.http.delete(f"{control}/members/{member}?confirm=DELETE").status_code == 204
        until(lambda: client.get("/v1/models").status_code == 401, "the key to stop", wait_s=1)
    asked = platform.http.get(f"{control}/audit?subject={member}&order=desc").json()["data"]
    assert [entry["action"].split()[0] for entry in asked] == ["DELETE", "PATCH", "POST"]
    with httpx.Client(base_url=platform.base_url) as stranger:
        assert stranger.get("/platform/openapi.json").status_code == 200
        assert stranger.get("/platform/v1/endpoints").status_code == 401
