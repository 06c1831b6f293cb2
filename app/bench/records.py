"""What a thousand endpoints cost the control plane: a page of their list, a look at all of them, a new routing table.

On a cluster that is played, so that nothing but the control plane is measured.
"""

import asyncio
import contextlib
import logging
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from app.control_plane.args import ControlPlaneArgs
from app.control_plane.deployment import asgi
from app.control_plane.platform import Platform
from app.core.jobs import RunStatus
from app.core.lifecycle import Seen
from app.core.records import DEFAULT_WORKSPACE, Endpoint
from app.core.routing import RoutingTable
from app.core.specs import EndpointSpec, MachineType
from app.core.waiting import Room
from app.settings import Settings
from app.store.layout import publish_folder
from app.store.objects import open_store

ENDPOINTS = 1000
PAGE_SIZE = 100
PAGES = 200
"""Of which the 99th percentile is taken, each round."""
STEPS, PUSHES = 10, 10
TIMEOUT_S = 60.0


class PlayedCluster:
    """Whatever is deployed runs at once."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], Seen] = {}

    def observe(self) -> list[Seen]:
        return list(self._running.values())

    def deploy(self, endpoint_id: str, revision: str, application: Any) -> None:
        self._running[endpoint_id, revision] = Seen(endpoint_id, revision, "running", running_units=1, target_units=1)

    def remove(self, endpoint_id: str, revision: str) -> None:
        self._running.pop((endpoint_id, revision), None)

    def wake(self, endpoint_id: str, revision: str) -> None: ...

    def rooms(self) -> list[Room]:
        return []

    def read_notes(self, prefix: str) -> dict[str, bytes]:
        return {}

    def drop_notes(self, keys: Collection[str]) -> None: ...

    def submit(self, submission_id: str, entrypoint: str, machine: MachineType | None = None) -> None:
        raise RuntimeError("no jobs here")

    def run_status(self, submission_id: str) -> tuple[RunStatus, str]:
        return "missing", ""

    def stop(self, submission_id: str) -> None: ...

    def logs(self, submission_id: str) -> str | None:
        return None


def measure_records(rounds: int, endpoints: int = ENDPOINTS) -> dict[str, list[float]]:
    """`list_1000_endpoints_p99_ms`, `reconcile_1000_endpoints_ms` and `routing_table_push_1000_ms` of each round.

    The names stay with another number of `endpoints`. Raises RuntimeError when they do not become healthy.
    """
    with tempfile.TemporaryDirectory(prefix="modelunit-records-") as home, _silence():
        platform = Platform(Settings(home=Path(home)), PlayedCluster(), ControlPlaneArgs(), routers_timeout_s=0)
        try:
            _publish_model(platform.settings)
            platform.open()
            for loop in platform.loops:
                loop.stop()  # steps are taken by hand
            _fill(platform, endpoints)
            taken: dict[str, list[float]] = {}
            for _ in range(rounds):
                for name, figure_ms in (
                    ("list_1000_endpoints_p99_ms", asyncio.run(_list_p99_ms(platform))),
                    ("reconcile_1000_endpoints_ms", _median_ms([_step_s(platform) for _ in range(STEPS)])),
                    ("routing_table_push_1000_ms", _median_ms([_push_s(platform) for _ in range(PUSHES)])),
                ):
                    taken.setdefault(name, []).append(figure_ms)
            return taken
        finally:
            platform.close()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """A thousand lines for each state are no figures."""
    log = logging.getLogger("ray.serve")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _publish_model(settings: Settings) -> None:
    folder = settings.home / "source"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    store = open_store(settings)
    publish_folder(store, folder, model_id="m-1", name="model", base_model="none", precision="BF16")


def _fill(platform: Platform, endpoints: int) -> None:
    """Records as POST makes them, and as many running applications; the first steps deploy them, which takes long."""
    now = datetime.now(UTC)
    platform.registry.put(
        *(
            Endpoint(
                id=f"ep-{number:05}",
                created_at=now,
                updated_at=now,
                workspace=DEFAULT_WORKSPACE,
                spec=EndpointSpec(name=f"e{number:05}", description="One of a thousand", model="m-1"),
            )
            for number in range(endpoints)
        )
    )
    for _ in range(5):
        if platform.reconciler.step():
            break
    states = {endpoint.state for endpoint in platform.registry.find(Endpoint)}
    if states != {"healthy"}:
        raise RuntimeError(f"the endpoints are {', '.join(sorted(states))}")


async def _list_p99_ms(platform: Platform) -> float:
    """GET of a page, over and over through the whole list."""
    key = (platform.settings.home / "admin.key").read_text().strip()
    transport = httpx.ASGITransport(asgi(platform))
    headers = {"authorization": f"Bearer {key}"}
    took_s: list[float] = []
    async with httpx.AsyncClient(transport=transport, base_url="http://bench", headers=headers) as client:
        token = None
        for _ in range(PAGES):
            query = {"page_size": str(PAGE_SIZE)} | ({"page_token": token} if token else {})
            started = time.perf_counter()
            answer = await client.get("/v1/endpoints", params=query)
            took_s.append(time.perf_counter() - started)
            token = answer.raise_for_status().json()["next_page_token"]
    return sorted(took_s)[len(took_s) * 99 // 100] * 1000


def _step_s(platform: Platform) -> float:
    """A look at everything, of which nothing is to be changed."""
    started = time.perf_counter()
    settled = platform.reconciler.step()
    took_s = time.perf_counter() - started
    if not settled:
        raise RuntimeError("the endpoints do not come to rest")
    return took_s


def _push_s(platform: Platform) -> float:
    """From one endpoint's change to a router that has read the new table."""
    tables, arrived = platform.tables, threading.Event()
    number = RoutingTable.model_validate_json(tables.wait(-1, 0) or b"").number
    waits = threading.Event()

    def route() -> None:
        waits.set()
        if table := tables.wait(number, TIMEOUT_S):
            RoutingTable.model_validate_json(table)
            arrived.set()

    router = threading.Thread(target=route)
    router.start()
    waits.wait(TIMEOUT_S)
    endpoint = platform.registry.find(Endpoint, limit=1)[0]
    coming = {endpoint.id: endpoint.model_copy(update={"reason": f"table {number} is old"})}
    started = time.perf_counter()
    tables.publish(coming)
    arrived.wait(TIMEOUT_S)
    took_s = time.perf_counter() - started
    router.join()
    if not arrived.is_set():
        raise RuntimeError("the table did not reach the router")
    return took_s


def _median_ms(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) // 2] * 1000
