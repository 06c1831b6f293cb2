"""What a unit tells of its start: how often, in which words, and that nothing depends on who listens."""

import asyncio
import time

import pytest

from app.core.errors import EngineStartError
from app.unit import control_plane, phases
from app.unit.control_plane import ControlPlaneForUnit, Unit
from app.unit.phases import telling, weights_phase
from app.unit.weight_cache_progress import Progress
from tests.control_plane_calls import PlayedControlPlane

WAIT_S = 20


class ControlPlane:
    """Notes what it is told, and when."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.at_s: list[float] = []
        self._heard = asyncio.Semaphore(0)

    async def tell(self, phase: str) -> None:
        self.told.append(phase)
        self.at_s.append(time.monotonic())
        self._heard.release()

    async def hears(self, count: int) -> None:
        """So many times more."""
        async with asyncio.timeout(WAIT_S):
            for _ in range(count):
                await self._heard.acquire()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the usual times."""
    for module, name in ((phases, "PERIOD_S"), (phases, "REPEAT_S"), (control_plane, "DEADLINE_S")):
        monkeypatch.setattr(module, name, getattr(module, name) / 10)


@pytest.mark.parametrize(
    ("progress", "phase"),
    [
        (None, "checking weights"),
        (Progress(done_bytes=5 << 29, total_bytes=9 << 29, fetching=True), "fetching weights: 2.5 of 4.5 GiB"),
        (Progress(done_bytes=5 << 29, total_bytes=9 << 29), "checking weights: 2.5 of 4.5 GiB"),
        (Progress(done_bytes=9, total_bytes=9, fetching=True), "checking weights"),
    ],
)
def test_what_happens_to_weights(progress: Progress | None, phase: str) -> None:
    assert weights_phase(progress) == phase


@pytest.mark.usefixtures("clock")
async def test_a_changing_phase_is_told_once_a_period() -> None:
    plane = ControlPlane()
    counts = iter(range(10**9))
    async with telling(plane.tell, lambda: f"fetching {next(counts)}"):
        await plane.hears(5)
    assert plane.told[:5] == [f"fetching {count}" for count in range(5)]
    assert all(later - earlier >= 0.09 for earlier, later in zip(plane.at_s, plane.at_s[1:], strict=False))


@pytest.mark.usefixtures("clock")
async def test_an_unchanged_phase_is_told_again_now_and_then() -> None:
    plane = ControlPlane()
    async with telling(plane.tell, lambda: "starting the engine"):
        await plane.hears(3)
    assert plane.at_s[2] - plane.at_s[0] >= 0.9


@pytest.mark.usefixtures("clock")
async def test_nothing_is_told_after_the_start() -> None:
    plane = ControlPlane()

    async def start() -> None:
        async with telling(plane.tell, lambda: str(time.monotonic())):
            await plane.hears(1)
            raise EngineStartError("no room")

    with pytest.raises(EngineStartError):
        await start()
    told = len(plane.told)
    await asyncio.sleep(0.3)
    assert len(plane.told) == told


@pytest.mark.usefixtures("clock")
async def test_a_control_plane_that_does_not_answer_is_asked_again_and_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plane = PlayedControlPlane()
    plane.begin(monkeypatch)
    unit = ControlPlaneForUnit(Unit("ep-1", "r1", "unit1"))
    async with telling(unit.phase, lambda: "checking weights"), asyncio.timeout(WAIT_S):
        await plane.asked.acquire()
        await plane.asked.acquire()
        left_at = time.monotonic()
    assert time.monotonic() - left_at < 0.1
    await asyncio.sleep(0)  # the one under way hears of it
    assert plane.calls == [("unit_phase", *Unit("ep-1", "r1", "unit1"), "checking weights")] * 2
    assert [response.cancelled for response in plane.responses] == [True, True]


def fails(*_: object) -> str:
    raise OSError("no such file")


@pytest.mark.usefixtures("clock")
async def test_what_fails_on_the_way_does_not_fail_the_start() -> None:
    plane = ControlPlane()
    tries = 0

    def sometimes() -> str:
        nonlocal tries
        tries += 1
        return fails() if tries < 3 else "checking weights"

    async with telling(plane.tell, sometimes):
        await plane.hears(1)
    async with telling(fails, lambda: "checking weights"):  # type: ignore[arg-type]
        await asyncio.sleep(0.2)
