import asyncio
from pathlib import Path

import pytest

from app.core.reports import RouterReport
from app.router import reporter as module
from app.router.directory import Directory
from app.router.figures import Figures
from app.router.reporter import QUIET_PERIOD_S, Reporter
from app.store.file_store import FileStore
from app.store.layout import SNAPSHOT
from tests.router.tables import Clock, NoControlPlane, table
from tests.router.units import WAIT_S, until


class Sink:
    """A control plane that can be away."""

    def __init__(self) -> None:
        self.reports: list[RouterReport] = []
        self.away = False
        self.asked = 0

    async def report(self, report: str) -> None:
        self.asked += 1
        if self.away:
            raise ConnectionError
        self.reports.append(RouterReport.model_validate_json(report))


class Trial:
    def __init__(self, folder: Path):
        store = FileStore(folder)
        store.write(SNAPSHOT, table().model_dump_json().encode())
        self.clock = Clock(50)
        self.figures = Figures("r", self.clock, Clock(1000))
        self.directory = Directory(store, NoControlPlane())
        self.sink = Sink()
        self.reporter = Reporter(self.figures, self.directory, self.sink)

    def call(self, endpoint_id: str = "ep-1") -> None:
        with self.figures.request() as counted:
            counted.concerns(endpoint_id)
            counted.answered(200, streamed=False)

    @property
    def counts(self) -> list[dict[str, int]]:
        return [{name: of.requests["2xx"] for name, of in r.endpoints.items()} for r in self.sink.reports]


@pytest.fixture
async def trial(tmp_path: Path) -> Trial:
    trial = Trial(tmp_path / "objects")
    await trial.directory.load_snapshot()
    return trial


async def test_reports_are_cumulative_so_that_none_is_missed(trial: Trial) -> None:
    trial.call()
    await trial.reporter.step()
    trial.sink.away = True
    trial.call()
    await trial.reporter.step()
    trial.call()
    await trial.reporter.step()
    trial.sink.away = False
    await trial.reporter.step()
    assert trial.counts == [{"ep-1": 1}, {"ep-1": 3}]
    assert {report.started_at for report in trial.sink.reports} == {1000}
    assert 'modelunit_routing_table_number{router="r"} 7' in trial.sink.reports[0].prometheus


async def test_while_nothing_happens_there_is_a_sign_of_life_now_and_then(trial: Trial) -> None:
    await trial.reporter.step()
    await trial.reporter.step()
    assert trial.sink.asked == 1
    trial.clock.now += QUIET_PERIOD_S
    await trial.reporter.step()
    await trial.reporter.step()
    assert trial.sink.asked == 2
    trial.call()
    await trial.reporter.step()
    assert trial.sink.asked == 3


async def test_an_endpoint_that_left_the_table_is_reported_once_more(trial: Trial) -> None:
    trial.call("ep-gone")
    trial.sink.away = True
    await trial.reporter.step()
    trial.sink.away = False
    await trial.reporter.step()
    trial.call()
    await trial.reporter.step()
    assert trial.counts == [{"ep-gone": 1}, {"ep-1": 1}]


async def test_the_loop_goes_on_whatever_the_control_plane_does(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PERIOD_S", 0.001)
    trial.sink.away = True
    task = asyncio.create_task(trial.reporter.run())
    async with asyncio.timeout(WAIT_S):
        await until(lambda: trial.sink.asked >= 3)
        trial.sink.away = False
        await until(lambda: len(trial.sink.reports) == 1)
    assert not task.done()
    task.cancel()
    assert caplog.text.count("takes no report") == 1  # not once every few seconds
