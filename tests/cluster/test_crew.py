"""Workers under Ray Train: as many as there are, and whatever happens to them, they give what one would."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import ray

from app.core.errors import PlatformError
from app.store.file_store import FileStore
from app.tuning.checkpoints import CheckpointStore
from app.tuning.crew import Crew, train_together
from app.tuning.loop import Work, Worker, train_here
from app.tuning.reports import Report
from tests.tuning.tiny_models import RandomSamples, plan_of, write_tiny

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
ONE = Crew(workers=1, cpus=0.5, threads=1)
TWO = Crew(workers=2, cpus=0.5, threads=1)


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray of our own. Paths of sockets have a limit, which pytest's folders exceed."""
    os.environ["RAY_TRAIN_ENABLE_STATE_TRACKING"] = "0"
    runtime_env = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=128 << 20,
        runtime_env=runtime_env,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"))


def work_of(base: Path, store: Path, **differs: object) -> Work:
    plan = plan_of(**differs)
    return Work(plan, base, RandomSamples(plan.rows), CheckpointStore(FileStore(store), "checkpoints/"))


def told(work: Work, crew: Crew | None, on_report: Callable[[Report], bool] = lambda report: False) -> list[Report]:
    """What each iteration told last; without a crew this process trains by itself."""
    reports: dict[int, Report] = {}

    def tell(report: Report) -> bool:
        reports[report.iteration] = report
        return on_report(report)

    if crew:
        train_together(work, crew, tell)
    else:
        train_here(work, Worker(), tell)
    return [reports[iteration] for iteration in sorted(reports)]


def _trains(process: psutil.Process) -> bool:
    try:
        return "RayTrainWorker" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.soak)])
def test_two_workers_learn_what_one_learns_also_when_one_is_killed(base: Path, tmp_path: Path, method: str):
    # Long enough that the worker still runs when it is to be killed.
    differs = {
        "method": method, "learning_rate": 1e-3, "validation_rows": 7, "iterations": 300, "checkpoint_every": 25
    }  # fmt: skip
    killed: list[int] = []

    def kill_one(report: Report) -> bool:
        if report.iteration >= 4 and not killed:
            *_, last = filter(_trains, psutil.Process().children(recursive=True))
            killed.append(last.pid)
            last.kill()
        return False

    twos = told(work_of(base, tmp_path / "together", **differs), TWO, kill_one)
    ones = told(work_of(base, tmp_path / "alone", **differs), None)
    assert killed
    assert [report.iteration for report in twos] == list(range(1, 301))
    for one, two in zip(ones, twos, strict=True):
        assert two.cards == 2
        assert (two.tokens, two.trained_tokens) == (one.tokens, one.trained_tokens)
        assert two.loss == pytest.approx(one.loss, rel=1e-4)
        assert (two.validation_loss is None) == (one.validation_loss is None)
        if one.validation_loss is not None:
            assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-4)


@pytest.mark.soak
def test_a_loss_that_is_no_number_is_an_error_at_once(base: Path, tmp_path: Path):
    work = work_of(base, tmp_path, method="full", learning_rate=1e30, warmup_iterations=0)
    with pytest.raises(PlatformError, match="lower learning_rate"):
        told(work, ONE)
