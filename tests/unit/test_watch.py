"""What a unit lets be seen of itself: with a real engine process, and nobody who must listen."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.reports import UnitReport
from app.router.stream import TokenListener
from app.store.file_store import FileStore
from app.store.layout import LOGS
from app.store.object_store import StoreUnavailable
from app.unit import reporter, watch
from app.unit.control_plane import Unit
from app.unit.engine_client import EngineClient
from app.unit.watch import Watch
from tests.unit.engines import WAIT_S, Caller, StartEngine

UNIT = Unit("ep-20260131093000-abcde", "0a1b2c3d", "unit1")


@pytest.fixture(autouse=True)
def short_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOG_PERIOD_S", 0.02)
    monkeypatch.setattr(reporter, "PERIOD_S", 0.05)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "objects")


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    return tmp_path / "logs" / f"engine-{UNIT.endpoint_id}.r-{UNIT.revision}-{UNIT.name}.log"


class Listener:
    """A control plane that may be away."""

    def __init__(self) -> None:
        self.reports: list[UnitReport] = []
        self.away = False

    async def report(self, report: str) -> None:
        if self.away:
            raise RuntimeError("no answer")
        self.reports.append(UnitReport.model_validate_json(report))


async def until(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not check():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def append(log_file: Path, text: str) -> None:
    log_file.parent.mkdir(exist_ok=True)
    with log_file.open("a") as file:
        file.write(text)


def logged(store: FileStore) -> str:
    return b"".join(store.read(stored.name) for stored in store.list(LOGS)).decode()


async def test_figures_are_told_at_once_and_again(
    start_engine: StartEngine, listener: TokenListener, store: FileStore, log_file: Path
) -> None:
    engine, plane = await start_engine(), Listener()
    seen = Watch(store, log_file, UNIT)
    seen.engine_runs(engine, plane)
    await until(lambda: plane.reports)
    first = plane.reports[0]
    assert (first.engine.requests, first.cpu_pct, first.accelerator_pct) == (0, None, None)
    assert first.memory_bytes is not None
    assert first.memory_bytes > 1 << 20
    caller = Caller(listener, engine, max_tokens=3)
    await caller.read_all()
    await caller.call
    await until(lambda: plane.reports[-1].engine.completion_tokens == 3)
    assert plane.reports[-1].cpu_pct is not None
    assert {report.started_at for report in plane.reports} == {first.started_at}
    await seen.end("done")
    count = len(plane.reports)
    await asyncio.sleep(0.15)
    assert len(plane.reports) == count


async def test_the_time_since_the_last_report_is_told_at_the_end(
    start_engine: StartEngine,
    listener: TokenListener,
    store: FileStore,
    log_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reporter, "PERIOD_S", 60.0)
    engine, plane = await start_engine(), Listener()
    seen = Watch(store, log_file, UNIT)
    seen.engine_runs(engine, plane)
    await until(lambda: plane.reports)
    caller = Caller(listener, engine, max_tokens=3)
    await caller.read_all()
    await caller.call
    await seen.engine_ends()
    engine.close()
    await seen.end("done")
    first, last = plane.reports
    assert last.started_at == first.started_at
    assert last.up_s > first.up_s
    assert last.engine.completion_tokens == 3


async def test_the_time_of_a_unit_whose_engine_died_is_told_too(
    start_engine: StartEngine,
    listener: TokenListener,
    store: FileStore,
    log_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, plane = await start_engine(), Listener()
    caller = Caller(listener, engine, max_tokens=3)
    await caller.read_all()
    await caller.call
    monkeypatch.setattr(reporter, "PERIOD_S", 60.0)
    seen = Watch(store, log_file, UNIT)
    seen.engine_runs(engine, plane)
    await until(lambda: plane.reports)
    os.kill(engine.pid, signal.SIGKILL)
    await engine.died.wait()
    await seen.end("the engine died")
    first, last = plane.reports
    assert last.up_s > first.up_s
    assert last.engine == first.engine
    assert last.engine.completion_tokens == 3


class SlowListener(Listener):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.answers = asyncio.Event()

    async def report(self, report: str) -> None:
        self.asked += 1
        await self.answers.wait()
        await super().report(report)


async def test_the_last_report_does_not_overtake_the_one_before(
    start_engine: StartEngine, store: FileStore, log_file: Path
) -> None:
    plane = SlowListener()
    seen = Watch(store, log_file, UNIT)
    seen.engine_runs(await start_engine(), plane)
    await until(lambda: plane.asked)
    ending = asyncio.create_task(seen.end("done"))
    await until(lambda: "done" in logged(store))
    assert plane.asked == 1
    plane.answers.set()
    await ending
    assert plane.asked == len(plane.reports) == 2
    assert plane.reports[0].up_s < plane.reports[1].up_s


async def test_a_control_plane_that_does_not_answer_holds_up_no_end(
    start_engine: StartEngine, store: FileStore, log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LAST_WORDS_TIMEOUT_S", 0.2)
    plane = SlowListener()
    seen = Watch(store, log_file, UNIT)
    seen.engine_runs(await start_engine(), plane)
    async with asyncio.timeout(WAIT_S):
        await seen.end("done")
    assert plane.reports == []


async def test_a_control_plane_that_is_away_is_told_later(
    start_engine: StartEngine, store: FileStore, log_file: Path
) -> None:
    plane = Listener()
    plane.away = True
    seen = Watch(store, log_file, UNIT)
    seen.engine_runs(await start_engine(), plane)
    await asyncio.sleep(0.1)
    plane.away = False
    await until(lambda: plane.reports)
    await seen.end("done")


async def test_lines_are_in_the_store_while_the_engine_starts_and_after_its_death(
    start_engine: StartEngine, store: FileStore, log_file: Path
) -> None:
    seen = Watch(store, log_file, UNIT)
    append(log_file, "loading weights\n")
    await until(lambda: "loading weights" in logged(store))
    engine: EngineClient = await start_engine()
    seen.engine_runs(engine, Listener())
    await until(lambda: "the engine is ready" in logged(store))
    os.kill(engine.pid, signal.SIGKILL)
    await engine.died.wait()
    append(log_file, "Segmentation fault")
    await seen.end("the engine died: without a word")
    assert logged(store).count("Segmentation fault") == 1
    assert "the engine died: without a word" in logged(store)


async def test_a_store_that_is_away_holds_up_no_end(
    store: FileStore, log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, data: bytes) -> None:
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(store, "write", refuse)
    seen = Watch(store, log_file, UNIT)
    append(log_file, "something\n")
    await asyncio.sleep(0.1)
    async with asyncio.timeout(WAIT_S):
        await seen.end("the unit stops")


async def test_the_logs_of_units_that_were_killed_are_brought_along(
    start_engine: StartEngine, store: FileStore, log_file: Path
) -> None:
    append(log_file.with_name(log_file.name.replace("unit1", "unit0")), "left behind\n")
    seen = Watch(store, log_file, UNIT)
    seen.engine_runs(await start_engine(), Listener())
    await until(lambda: "left behind" in logged(store))
    await seen.end("done")
