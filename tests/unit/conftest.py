"""A real engine host of the test's own, simulated engines, and a router's listener for their tokens."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from app.router.stream import TokenListener
from app.unit.engine import Simulation
from app.unit.engine_client import EngineClient
from tests.unit.engines import WAIT_S, StartEngine, end_host, launch_of
from tests.unit.weight_units import cache, near  # noqa: F401 (fixtures)


@pytest.fixture(scope="module")
def module_run_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Shared by the tests of a module, since a host takes a second to start."""
    run_dir = tmp_path_factory.mktemp("home") / "run"
    run_dir.mkdir()
    yield run_dir
    end_host(run_dir)


@pytest.fixture
def own_run_dir(tmp_path: Path) -> Iterator[Path]:
    """A host of one test's own, under a path that is longer than a unix socket's may be."""
    run_dir = tmp_path / ("long-" * 12) / ("path-" * 12) / "run"
    run_dir.mkdir(parents=True)
    yield run_dir
    end_host(run_dir)


@pytest.fixture
async def start_engine(module_run_dir: Path) -> AsyncIterator[StartEngine]:
    """Starts simulated engines; all are closed in the end."""
    clients: list[EngineClient] = []

    async def start(
        *,
        run_dir: Path = module_run_dir,
        timeout_s: float = WAIT_S,
        clock: Callable[[], float] = time.monotonic,
        **simulation: object,
    ) -> EngineClient:
        launch = launch_of(run_dir, Simulation.model_validate(simulation))
        clients.append(await EngineClient.start(launch, run_dir, timeout_s, clock))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


@pytest.fixture
async def listener() -> AsyncIterator[TokenListener]:
    listener = TokenListener()
    await listener.start("127.0.0.1")
    yield listener
    listener.stop()
