"""Waiting for models and jobs: a control plane that is away for a while does not end it."""

import time
from typing import Any

import httpx
import pytest

from app.cli.api import Refused
from app.cli.waiting import wait_for_job, wait_for_model
from app.local import StartFailed
from tests.cli.played_answers import Clock, PlayedAnswers

AWAY = (httpx.ConnectError("away"), Refused("The control plane cannot be reached.", 503))
JOB = {"id": "job-1", "type": "upload", "state": "running", "done_bytes": 1, "total_bytes": 2}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)


def model(state: str) -> dict[str, Any]:
    return {"id": "m-1", "state": state}


def wait(*answers: Any) -> dict[str, Any]:
    return wait_for_model(PlayedAnswers(*answers), "m-1", Clock())  # type: ignore[arg-type]


def test_a_model_is_waited_for_while_the_control_plane_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    preparing = model("preparing")
    assert wait(*AWAY, preparing, [JOB], preparing, *AWAY, preparing, [], model("healthy")) == model("healthy")
    assert capsys.readouterr().err.count("the control plane does not answer; the wish stands") == 2


def test_the_waiting_for_a_model_has_an_end() -> None:
    with pytest.raises(StartFailed, match="the wish stands"):
        wait(*[httpx.ConnectError("away")] * 1000)
    with pytest.raises(Refused):
        wait(Refused("There is no model.", 404))


def test_a_job_is_waited_for_while_the_control_plane_is_replaced() -> None:
    ended = JOB | {"state": "completed"}
    answers = PlayedAnswers(*AWAY, JOB, *AWAY, ended)
    assert wait_for_job(answers, JOB, Clock()) == ended  # type: ignore[arg-type]
