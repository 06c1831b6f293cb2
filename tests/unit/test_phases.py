"""What a unit tells of its start: how often, in which words, and that nothing depends on who listens."""

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from app.core.errors import EngineStartError
from app.unit import control_plane, phases
from app.unit.phases import telling, weights_phase
from app.unit.weight_cache_entry import Progress

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


class Silent(ControlPlane):
    """Never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.given_up: list[str] = []

    async def tell(self, phase: str) -> None:
        await super().tell(phase)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.given_up.append(phase)
            raise


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the usual times."""
    for name in ("PERIOD_S", "REPEAT_S", "TIMEOUT_S"):
        monkeypatch.setattr(phases, name, getattr(phases, name) / 10)


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
async def test_a_control_plane_that_does_not_answer_is_asked_again_and_holds_up_nothing() -> None:
    plane = Silent()
    async with telling(plane.tell, lambda: "checking weights"):
        await plane.hears(2)
        left_at = time.monotonic()
    assert time.monotonic() - left_at < 0.1
    await asyncio.sleep(0)  # the one under way hears of it
    assert plane.given_up == plane.told


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


class Handle:
    """Of the control plane's deployment."""

    def __init__(self, answer: "Callable[[], asyncio.Future[None]]") -> None:
        self.calls: list[tuple[str, ...]] = []
        self._answer = answer
        self.unit_phase = SimpleNamespace(remote=self._remote)

    def _remote(self, *arguments: str) -> "asyncio.Future[None]":
        self.calls.append(arguments)
        return self._answer()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Serve as a replica of ep-1's revision r1 sees it."""
    context = SimpleNamespace(app_name="ep-1.r-r1", replica_tag="tag")
    played = SimpleNamespace(get_replica_context=lambda: context, handle=None)
    played.get_deployment_handle = lambda *where, _check_exists: played.handle
    monkeypatch.setattr(control_plane, "serve", played)
    return played


async def test_a_unit_says_who_it_is(serve: SimpleNamespace) -> None:
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    answered.set_result(None)
    serve.handle = Handle(lambda: answered)
    await phases.tell_control_plane("checking weights")
    assert serve.handle.calls == [("ep-1", "r1", "tag", "checking weights")]


async def test_a_call_that_is_given_up_is_cancelled(serve: SimpleNamespace) -> None:
    waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    serve.handle = Handle(lambda: waiting)
    call = asyncio.create_task(phases.tell_control_plane("checking weights"))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert waiting.cancelled()
