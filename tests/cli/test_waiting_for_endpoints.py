"""Waiting for an endpoint: what is told meanwhile, and what ends it."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import typer

from app.cli.api import Refused
from app.cli.waiting import wait_for_endpoint
from app.local import StartFailed


class Answers:
    """A control API that answers the same question differently each time: a record, or an error to raise."""

    def __init__(self, *answers: Any):
        self._answers = list(answers)

    def call(self, *_: Any) -> Any:
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Clock:
    """Goes on by a second each time that it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def record(state: str, reason: str = "", observed: int = 1) -> dict[str, Any]:
    return {"id": "ep-1", "state": state, "reason": reason, "generation": 1, "observed_generation": observed}


Watch = Callable[..., tuple[dict[str, Any], bool]]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return lambda *answers: wait_for_endpoint(Answers(*answers), "ep-1", Clock())  # type: ignore[arg-type]


def test_each_phase_is_told_once(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    copying = "the first unit is copying"
    endpoint, serves = watch(
        record("healthy", observed=0),  # of the wish before
        record("scheduling", f"{copying} 40 %: 1.0 of 2.5 GiB"),
        record("scheduling", f"{copying} 80 %: 2.0 of 2.5 GiB"),
        httpx.ConnectError("away"),
        Refused("The control plane cannot be reached.", 503),
        record("scheduling", "the first unit is starting the engine"),
        record("healthy"),
    )
    assert (endpoint["state"], serves) == ("healthy", True)
    lines = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "healthy",
        f"scheduling: {copying} 40 %: 1.0 of 2.5 GiB",
        "the control plane does not answer; the wish stands",
        "scheduling: the first unit is starting the engine",
        "healthy",
    ]


def test_a_state_of_the_wish_before_does_not_end_the_waiting(watch: Watch) -> None:
    before = [record("abnormal", "old", observed=0)] * 3
    assert watch(*before, record("scheduling"), record("healthy"))[1] is True
    endpoint, serves = watch(record("scheduling"), *[record("abnormal", "it cannot")] * 20)
    assert (endpoint["reason"], serves) == ("it cannot", False)


def test_the_waiting_ends_when_the_control_plane_stays_away(watch: Watch) -> None:
    with pytest.raises(StartFailed, match="the wish stands"):
        watch(*[httpx.ConnectError("away")] * 1000)
    with pytest.raises(Refused):
        watch(Refused("There is no endpoint.", 404))
    with pytest.raises(typer.Exit):
        watch(KeyboardInterrupt())
