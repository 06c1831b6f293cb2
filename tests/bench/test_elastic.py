"""The rows of elastic endpoints, on a platform that is played."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from app.bench import elastic, idle
from app.bench.elastic import measure_refusals, measure_sleepers, measure_steps, measure_wakes
from app.bench.stage import IDLE_S, Stage

ANSWER_S = {"cold": 30.0, "warm": 10.0}


class PlayedStage(Stage):
    """Says what it is told to say; nothing runs."""

    def __init__(self) -> None:
        self.first = {"name": "demo", "model": "the-model", "scale": {"min_units": 1, "max_units": 1}}
        self.deployed: list[list[str]] = []
        self.scales: list[dict[str, Any]] = []
        self.host = "warm"
        self.loaded = 0
        self.late_s = 0.5
        """After which a target changes."""
        self.refuses = {"id-narrow": 429, "id-broken": 503}
        self.retry_after: dict[str, str] = {"retry-after": "5"}
        self.http = httpx.Client(base_url="http://stage", transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        endpoint_id = next(name for name in self.refuses if name.encode() in request.content)
        assert endpoint_id == "id-broken" or self.loaded == 2
        return httpx.Response(self.refuses[endpoint_id], headers=self.retry_after)

    def deploy(self, *endpoints: Any, **args: Any) -> None:
        self.deployed.append([endpoint["name"] for endpoint in endpoints])
        self.scales.append(endpoints[0]["scale"])
        assert all(endpoint["model"] == "the-model" for endpoint in endpoints)
        simulated = {endpoint["name"] for endpoint in endpoints[1:]}
        assert simulated <= set(args.get("simulations", {}))

    def wait_for(self, name: str, *states: str) -> dict[str, Any]:
        assert name in self.deployed[-1]
        return {"id": f"id-{name}"}

    def answer_s(self, endpoint_id: str) -> float:
        took_s, self.host = ANSWER_S[self.host], "warm"
        return took_s

    def end_engine_host(self) -> None:
        self.host = "cold"

    @contextlib.contextmanager
    def load(self, endpoint_id: str, requests: int) -> Iterator[None]:
        self.loaded = requests
        yield
        self.loaded = 0

    def target_changed_at(self, endpoint_id: str, target: int, since_s: float) -> float:
        assert target == 0 or (target == 2) == (self.loaded > 0)
        return since_s + self.late_s + (IDLE_S if target == 0 else 0)

    def units(self, endpoint_id: str) -> int:
        return 2 if self.loaded else 1

    def processes(self) -> list[psutil.Process]:
        return [psutil.Process()] * len(self.deployed[-1])


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> PlayedStage:
    monkeypatch.setattr(elastic, "LEFT_S", 0.0)
    monkeypatch.setattr(idle, "SETTLE_S", 0.0)
    return PlayedStage()


def test_wakes_are_timed_from_nothing_and_from_a_standby(stage: PlayedStage) -> None:
    assert measure_wakes(stage, 2, lambda _: None) == {
        "wake_to_first_token_s": [30.0, 30.0],
        "wake_standby_to_first_token_s": [10.0, 10.0],
        "idle_to_zero_extra_s": [pytest.approx(0.5)],
    }
    assert stage.scales == [{"min_units": 0, "max_units": 1, "idle_to_zero_s": 10}]


def test_one_that_sleeps_too_early_gives_no_figures(stage: PlayedStage) -> None:
    stage.late_s = -1.0
    with pytest.raises(RuntimeError, match=r"1\.0 s early"):
        measure_wakes(stage, 1, lambda _: None)


def test_the_slowest_but_one_of_twenty_steps_counts(stage: PlayedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    late_s = iter([value for number in range(20) for value in (number / 10, 0.0)])
    monkeypatch.setattr(stage, "target_changed_at", lambda endpoint_id, target, since_s: since_s + next(late_s))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert measure_steps(stage) == {"scale_up_p95_s": [pytest.approx(1.8)]}


def test_refusals_of_both_kinds_are_timed(stage: PlayedStage) -> None:
    (figure_ms,) = measure_refusals(stage, 20)["refusal_p99_ms"]
    assert 0 < figure_ms < 1000
    assert stage.deployed == [["demo", "narrow", "broken"]]


def test_a_refusal_without_a_time_to_come_back_gives_no_figures(stage: PlayedStage) -> None:
    stage.retry_after = {}
    with pytest.raises(RuntimeError, match="not 429 with Retry-After"):
        measure_refusals(stage, 1)


def test_what_one_sleeper_adds_is_a_share_of_what_all_add(stage: PlayedStage) -> None:
    taken = measure_sleepers(stage, 4, cost=lambda of: (10.0 + 0.3 * len(of), 0))
    assert taken == {"sleeping_endpoint_cpu_pct": [pytest.approx(0.3)]}
    assert [len(names) for names in stage.deployed] == [1, 5, 1]
