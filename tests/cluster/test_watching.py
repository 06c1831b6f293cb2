"""Figures and logs of real units, over the API that people use: what was done is counted, and can be read."""

import os
import re
import signal
from typing import Any

import httpx
import pytest

from tests.cluster.conftest import Platform, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PROMPT = "zebra umbrella quartz"


def figures(platform: Platform, name: str) -> list[dict[str, Any]]:
    answer = platform.http.get(f"/platform/v1/endpoints/{platform.endpoint(name)['id']}/metrics?minutes=1440")
    assert answer.status_code == 200, answer.text
    return [one | other for one, other in zip(answer.json()["service"], answer.json()["resources"], strict=True)]


def total(platform: Platform, name: str, counter: str) -> float:
    return sum(minute[counter] for minute in figures(platform, name))


def log(platform: Platform, name: str, **params: Any) -> str:
    url = f"/platform/v1/endpoints/{platform.endpoint(name)['id']}/logs"
    answer = platform.http.get(url, params={"download": True, **params})
    assert answer.status_code == 200, answer.text
    return answer.text


def exposition(platform: Platform) -> str:
    return httpx.get(f"{platform.base_url}/metrics", timeout=10, trust_env=False).text


def of_unit(platform: Platform, name: str, what: str) -> float | None:
    """What the only unit of an endpoint said last."""
    mark = f'modelunit_unit_{what}{{endpoint="{platform.endpoint(name)["id"]}"'
    values = [line.rpartition(" ")[2] for line in exposition(platform).splitlines() if line.startswith(mark)]
    return float(values[-1]) if values else None


def settle(platform: Platform, name: str) -> None:
    """Until all that has ended by now is counted: the unit has reported twice more."""
    for _ in range(2):
        known = until(lambda: of_unit(platform, name, "cpu_cores"), f"a report of {name}")
        # No two reports have the same time of CPU.
        until(lambda known=known: of_unit(platform, name, "cpu_cores") != known, f"another report of {name}")


@pytest.mark.engine
def test_what_the_real_engine_did_is_counted_exactly(platform: Platform) -> None:
    platform.wait_for("demo", "healthy")
    settle(platform, "demo")
    before = {name: total(platform, "demo", name) for name in ("prompt_tokens", "completion_tokens", "requests")}
    answers = of_unit(platform, "demo", "answers_total")
    assert answers is not None

    def counted() -> dict[str, float]:
        return {name: total(platform, "demo", name) - count for name, count in before.items()}

    request: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": PROMPT}]}
    whole = platform.openai.chat.completions.create(**request, max_tokens=12, n=2, temperature=0.7)
    stream = platform.openai.chat.completions.create(
        **request, max_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    usages = [whole.usage, list(stream)[-1].usage]
    wanted: dict[str, float] = {
        "prompt_tokens": sum(usage.prompt_tokens for usage in usages if usage),
        "completion_tokens": sum(usage.completion_tokens for usage in usages if usage),
        "requests": 2,
    }
    until(lambda: of_unit(platform, "demo", "answers_total") == answers + 2, "the unit's next report")
    until(lambda: counted()["requests"] == 2, "the router's next report")
    assert counted() == wanted

    text = ""
    with platform.http.stream(
        "POST", "/v1/chat/completions", json=request | {"stream": True, "ignore_eos": True, "max_tokens": 1500}
    ) as answer:
        for piece in answer.iter_text():
            text += piece
            if text.count("data:") > 20:
                break
    until(lambda: of_unit(platform, "demo", "answers_total") == answers + 3, "the report on a broken stream")
    assert counted()["prompt_tokens"] == wanted["prompt_tokens"] + usages[1].prompt_tokens  # type: ignore[union-attr]
    assert wanted["completion_tokens"] + 19 < counted()["completion_tokens"] < wanted["completion_tokens"] + 1500

    last = figures(platform, "demo")[-1]
    assert last["units"] == 1
    assert last["memory_bytes"] > 300 << 20
    assert last["kv_cache_pct"] is not None  # only the engine core knows it
    assert any(minute["tpot_ms"] for minute in figures(platform, "demo"))
    assert any(minute["ttft_ms"] for minute in figures(platform, "demo"))


@pytest.mark.engine
def test_the_engines_log_can_be_read_and_holds_no_prompt(platform: Platform) -> None:
    platform.wait_for("demo", "healthy")
    until(lambda: "the engine is ready" in log(platform, "demo"), "the engine's log")
    text = log(platform, "demo")
    assert "EngineCore" in text or "vllm" in text.lower()
    assert "zebra" not in text
    assert platform.key not in text
    assert str(platform.machine.home) not in text
    assert all(re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z [a-z0-9]+ ", line) for line in text.splitlines())


def test_prometheus_sees_routers_and_units(platform: Platform) -> None:
    ids = [platform.endpoint(name)["id"] for name in ("demo", "steady")]

    def seen() -> bool:
        return all(f'modelunit_unit_running{{endpoint="{id}"' in exposition(platform) for id in ids)

    until(seen, "the units' figures in /metrics")


def test_the_last_words_of_a_killed_engine_are_in_the_log(platform: Platform) -> None:
    platform.wait_for("crashing", "healthy")
    deaths = log(platform, "crashing").count("the engine died")
    pids = platform.engine_pids("crashing")
    os.kill(pids[0], signal.SIGKILL)
    until(lambda: log(platform, "crashing").count("the engine died") == deaths + 1, "the death in the log")
    until(lambda: set(platform.engine_pids("crashing")) - set(pids), "another engine")
    assert platform.wait_for("crashing", "healthy")


def test_a_log_is_followed_through_the_router(platform: Platform) -> None:
    url = f"/platform/v1/endpoints/{platform.endpoint('steady')['id']}/logs"
    with platform.http.stream("GET", url, params={"follow": True}) as answer:
        assert answer.status_code == 200
        assert "the engine is ready" in next(answer.iter_text())
