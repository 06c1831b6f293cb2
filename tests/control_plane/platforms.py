"""Platforms on a cluster that is played by a dictionary."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from app.control_plane.deployment import asgi
from app.control_plane.platform import Platform
from app.core.jobs import RunStatus
from app.core.lifecycle import ApplicationStatus, Seen
from app.core.records import DEFAULT_WORKSPACE, Endpoint, Record
from app.core.routing import RoutingTable
from app.core.specs import EndpointSpec, MachineType
from app.core.waiting import Room
from app.settings import Settings
from app.store.layout import SNAPSHOT, publish_folder
from app.store.objects import open_store

WAIT_S = 20
ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For tests, or modules as their `pytestmark`, that say nothing about what is kept in the registry."""


class FakeCluster:
    """Runs what is deployed at once, unless told otherwise."""

    def __init__(self) -> None:
        self.applications: dict[tuple[str, str], Seen] = {}
        self.deploys: list[tuple[str, str]] = []
        self.refuses: Callable[[str], bool] = lambda endpoint_id: False
        self.on_observe: Callable[[], None] = lambda: None
        self.submitted: dict[str, str] = {}
        self.placed: dict[str, str | None] = {}
        """Submission ID -> the machine type that its process was to have."""
        self.stopped: set[str] = set()
        self.run_becomes: RunStatus = "running"
        self.written: dict[str, str] = {}
        """Submission ID -> what its process wrote."""
        self.nodes: list[Room] | None = None
        self.notes: dict[str, bytes] = {}
        """What processes left in Ray's key-value store."""
        self.woken: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def submit(self, submission_id: str, entrypoint: str, machine: MachineType | None = None) -> None:
        self.submitted[submission_id] = entrypoint
        self.placed[submission_id] = machine.name if machine else None

    def run_status(self, submission_id: str) -> tuple[RunStatus, str]:
        if submission_id not in self.submitted:
            return "missing", ""
        return ("stopped" if submission_id in self.stopped else self.run_becomes), ""

    def logs(self, submission_id: str) -> str | None:
        return self.written.get(submission_id)

    def stop(self, submission_id: str) -> None:
        self.stopped.add(submission_id)

    def rooms(self) -> list[Room]:
        if self.nodes is None:
            raise RuntimeError("it does not tell")
        return self.nodes

    def read_notes(self, prefix: str) -> dict[str, bytes]:
        return {key: value for key, value in self.notes.items() if key.startswith(prefix)}

    def drop_notes(self, keys: Collection[str]) -> None:
        for key in keys:
            del self.notes[key]

    def wake(self, endpoint_id: str, revision: str) -> None:
        self.woken.append((endpoint_id, revision))

    def observe(self) -> list[Seen]:
        self.on_observe()
        with self._lock:
            return list(self.applications.values())

    def deploy(self, endpoint_id: str, revision: str, application: Any) -> None:
        with self._lock:
            self.deploys.append((endpoint_id, revision))
            if self.refuses(endpoint_id):
                raise RuntimeError("no")
            self.applications.setdefault((endpoint_id, revision), Seen(endpoint_id, revision, "running", "", 1))

    def remove(self, endpoint_id: str, revision: str) -> None:
        with self._lock:
            self.applications.pop((endpoint_id, revision), None)

    def becomes(self, endpoint_id: str, status: ApplicationStatus, reason: str = "") -> None:
        """All revisions of an endpoint change their status."""
        with self._lock:
            for key, app in self.applications.items():
                if app.endpoint_id == endpoint_id:
                    self.applications[key] = replace(app, status=status, reason=reason, running_units=0)


class NoCluster(FakeCluster):
    """Forgets whatever is deployed: nothing ever runs."""

    def deploy(self, endpoint_id: str, revision: str, application: Any) -> None:
        self.deploys.append((endpoint_id, revision))


def settings_in(home: Path, database_url: str | None = None) -> Settings:
    given = {"MODELUNIT_HOME": str(home)}
    return Settings.from_environ(given | ({"MODELUNIT_DATABASE_URL": database_url} if database_url else {}))


def publish_model(settings: Settings, model_id: str = "m-1", name: str = "Model-1", base_model: str = "b") -> None:
    """Weights in the object store; the content is nobody's business here."""
    folder = settings.home / "source"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(f'{{"of": "{model_id}"}}')
    publish_folder(open_store(settings), folder, model_id=model_id, name=name, base_model=base_model, precision="BF16")


def spec(name: str = "demo", **fields: Any) -> EndpointSpec:
    return EndpointSpec.model_validate({"name": name, "model": "m-1"} | fields)


def by_name(platform: Platform) -> dict[str, Endpoint]:
    return {endpoint.spec.name: endpoint for endpoint in platform.endpoints.find(DEFAULT_WORKSPACE)}


def admin_key(settings: Settings) -> str:
    return (settings.home / "admin.key").read_text().strip()


def client_of(platform: Platform, key: str | None, base_url: str = "http://test/v1") -> httpx.AsyncClient:
    """Calls the control API with a key, or as a stranger."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    transport = httpx.ASGITransport(asgi(platform))
    return httpx.AsyncClient(transport=transport, base_url=base_url, headers=headers, timeout=WAIT_S)


def table_of(platform: Platform) -> RoutingTable:
    """What the routers know."""
    return RoutingTable.model_validate_json(platform.tables.wait(-1, 0) or b"")


def saved_table(settings: Settings) -> RoutingTable:
    """What a router finds that starts without the control plane."""
    return RoutingTable.model_validate_json(open_store(settings).read(SNAPSHOT))


def specs(*names: str) -> Sequence[EndpointSpec]:
    return [spec(name) for name in names]


R = TypeVar("R", bound=Record)


def change(platform: Platform, record: R, **fields: Any) -> R:
    """Put these fields of a record as they are now, between two steps of the platform's own threads."""
    with platform.lock:
        current = platform.registry.get(type(record), record.id)
        assert current is not None
        changed = current.model_copy(update=fields)
        platform.registry.put(changed)
    return changed


T = TypeVar("T")


def until(check: Callable[[], T | None]) -> T:
    """The first true answer of `check`."""
    deadline = time.monotonic() + WAIT_S
    while not (found := check()):
        assert time.monotonic() < deadline, f"waited {WAIT_S} s"
        time.sleep(0.01)
    return found


async def until_answer(ask: Callable[[], Awaitable[httpx.Response]], wanted: Callable[[Any], bool]) -> Any:
    """The first answer's body that is wanted."""
    async with asyncio.timeout(WAIT_S):
        while True:
            body = (await ask()).json()
            if wanted(body):
                return body
            await asyncio.sleep(0.01)
