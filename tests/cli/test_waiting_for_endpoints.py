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
from tests.cli.played_answers import Clock, PlayedAnswers


def record(state: str, reason: str = "", observed: int = 1) -> dict[str, Any]:
    return {"id": "ep-1", "state": state, "reason": reason, "generation": 1, "observed_generation": observed}


Watch = Callable[..., tuple[dict[str, Any], bool]]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    monkeypatch.setattr(time, "sleep", lambda _: None)

    def wait(*answers: Any, timeout_s: float | None = None, awake: bool = False) -> tuple[dict[str, Any], bool]:
        played: Any = PlayedAnswers(*answers)
        return wait_for_endpoint(played, "ep-1", timeout_s, Clock(), awake=awake)

    return wait


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


def test_the_waiting_has_the_end_that_was_asked_for(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    endpoint, serves = watch(*[record("scheduling", "waiting for room")] * 1000, timeout_s=10)
    assert (endpoint["state"], serves) == ("scheduling", False)
    assert capsys.readouterr().err.splitlines()[-1] == "ep-1 does not serve after 10 s; the wish stands"
    with pytest.raises(StartFailed, match="does not serve after 10 s"):
        watch(*[httpx.ConnectError("away")] * 1000, timeout_s=10)


def test_an_engine_s_words_are_shown_as_they_are(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    watch(record("scheduling", "no [/INST] in\x1b[31m it"), record("healthy"))
    assert "scheduling: no [/INST] in[31m it" in capsys.readouterr().err


def test_a_wake_that_nobody_waits_for_any_more_goes_on_by_itself(
    watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    waking = record("waking", "a unit is starting") | {"units": {"running": 0}}
    with pytest.raises(typer.Exit):
        watch(waking, KeyboardInterrupt(), awake=True)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("interrupted; ep-1 goes on waking. 'modelunit endpoints get ep-1' shows it")
    assert "delete" not in said
    assert watch(*[waking] * 1000, timeout_s=10, awake=True)[1] is False
    assert capsys.readouterr().err.splitlines()[-1] == "ep-1 does not serve after 10 s; it goes on waking"
