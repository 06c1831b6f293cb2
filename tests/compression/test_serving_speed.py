"""Asking the engine how fast it serves a version: counted exactly, and whatever the engine does, with an answer."""

import sys
from pathlib import Path

import pytest

from app.compression.quality import speed
from app.compression.quality.serving import tokens_per_s
from app.compression.quality.speed import Served, served
from app.compression.quality.stopping import Stopped
from app.unit.engine import Simulation
from app.unit.simulated_engine import SimulatedEngine
from tests.unit.engines import launch_of
from tests.weights.sound_folders import write_sound

ANSWERS = """
import pathlib, sys, time
from app.compression.quality.speed import Asked, Served

asked = Asked.model_validate_json(sys.argv[1])
answer = Served(load_s=1, tokens_per_s=asked.threads)
(pathlib.Path(asked.scratch) / "answer.json").write_text(answer.model_dump_json())
time.sleep(60)
"""


def quiet(_: str) -> bool:
    return False


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Have another program in the engine's place."""

    def play(program: str) -> None:
        (tmp_path / "played_serving.py").write_text(program)
        monkeypatch.setattr(speed, "_SERVING", "played_serving")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")

    return play


def test_the_answer_counts_even_when_the_engine_will_not_end(played, tmp_path: Path):
    played(ANSWERS)
    assert served(tmp_path, quiet, threads=3) == Served(load_s=1, tokens_per_s=3)


def test_an_engine_that_dies_silently_is_told_of(played, tmp_path: Path):
    played("import os; os._exit(7)")
    assert served(tmp_path, quiet).problem == "the engine process ended without a word (code 7)"


def test_an_engine_that_hangs_is_given_up(played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speed, "TIMEOUT_S", 0.0)
    played("import time; time.sleep(60)")
    assert served(tmp_path, quiet).problem == "the engine did not answer within 0 s"


def test_it_stops_when_asked_to(played, tmp_path: Path):
    played("import time; time.sleep(60)")
    heard = iter([False, False])
    with pytest.raises(Stopped):
        served(tmp_path, lambda _: next(heard, True))


async def test_tokens_are_counted_exactly(tmp_path: Path):
    engine = SimulatedEngine(launch_of(tmp_path / "run", Simulation(first_token_s=0.0, between_tokens_s=0.01)))
    rate = await tokens_per_s(engine, concurrency=4, window_s=1.0)
    assert 10 < rate <= 4 / 0.01 * 1.2  # four answers at once, a token each hundredth of a second


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_a_real_engine_answers(tmp_path: Path):
    write_sound("llama-64", tmp_path / "model")
    found = served(tmp_path / "model", quiet, concurrency=2, window_s=1.0, threads=1)
    assert found.problem == ""
    assert found.load_s is not None
    assert found.tokens_per_s is not None
    assert found.tokens_per_s > 10
