"""What a training tells over several attempts, and how it hears that it is to stop."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from app.core.curves import Curve
from app.core.job_specs import TRAINING, JobProgress
from app.settings import Settings
from app.store.layout import JOB_CURVE, JOB_PROGRESS, JOB_STOP, job_object
from app.store.object_store import StoreError
from app.store.objects import open_store
from app.tuning.reporter import Reporter


@dataclass
class Done:
    """An iteration of 2 s on two cards."""

    iteration: int
    iterations: int = 100
    loss: float = 1.0
    learning_rate: float = 1e-5
    elapsed_s: float = 2.0
    tokens: int = 400
    cards: int = 2
    validation_loss: float | None = None


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def hear(reporter: Reporter, clock: Clock, *iterations: int) -> bool:
    stop = False
    for iteration in iterations:
        clock.now += 2.0
        stop = reporter.hear(Done(iteration))
    return stop


def progress(settings: Settings) -> JobProgress:
    return JobProgress.model_validate_json(open_store(settings).read(job_object("job-1", JOB_PROGRESS)))


def curve(settings: Settings) -> list[int]:
    read = Curve.model_validate_json(open_store(settings).read(job_object("job-1", JOB_CURVE)))
    return [point.iteration for point in read.points]


def test_speed_and_time_are_told(settings: Settings) -> None:
    clock = Clock()
    hear(Reporter(settings, "job-1", clock), clock, 1, 2, 3)
    told = progress(settings)
    assert told.phase == TRAINING
    assert told.training
    assert (told.training.tokens_per_s, told.training.tokens_per_s_per_card) == (200.0, 100.0)
    assert (told.training.iteration, told.training.eta_s, told.training.iterated_s) == (3, 194.0, 6.0)


def test_an_attempt_goes_on_with_time_and_curve_of_the_one_before(settings: Settings) -> None:
    clock = Clock()
    hear(Reporter(settings, "job-1", clock), clock, *range(1, 11))
    clock.now += 5000  # killed at iteration 10, queued, and begun again behind the checkpoint at 4
    reporter = Reporter(settings, "job-1", clock)
    hear(reporter, clock, *range(5, 8))
    told = progress(settings).training
    assert told
    assert told.iterated_s == 20.0 + 6.0
    reporter.hear(Done(100))
    assert curve(settings) == [1, 2, 3, 4, 5, 6, 7, 100]


def test_the_last_iteration_is_told_at_once_and_the_others_not_too_often(settings: Settings) -> None:
    clock = Clock()
    reporter = Reporter(settings, "job-1", clock)
    reporter.hear(Done(1))
    clock.now += 0.5
    reporter.hear(Done(2))
    assert progress(settings).training.iteration == 1  # type: ignore[union-attr]
    reporter.hear(Done(100))
    assert progress(settings).training.iteration == 100  # type: ignore[union-attr]


def test_a_stop_is_heard_within_seconds_and_stays(settings: Settings) -> None:
    clock = Clock()
    reporter = Reporter(settings, "job-1", clock)
    assert not hear(reporter, clock, 1)
    store = open_store(settings)
    store.write(job_object("job-1", JOB_STOP), b"{}")
    assert hear(reporter, clock, 2)
    store.delete(job_object("job-1", JOB_STOP))
    assert hear(reporter, clock, 3)


def test_a_store_that_fails_stops_no_training(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    reporter = Reporter(settings, "job-1", clock)

    def fail(*_: object) -> bytes:
        raise StoreError("away")

    monkeypatch.setattr("app.store.file_store.FileStore.write", fail)
    monkeypatch.setattr("app.store.file_store.FileStore.read", fail)
    assert not hear(reporter, clock, 1, 2, 3)
