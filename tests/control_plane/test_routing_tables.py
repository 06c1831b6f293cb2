"""What the routing table says of limits, networks and the routers that share them."""

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.control_plane.services.routing_table import ROUTER_LOST_AFTER_S, RoutingTables
from app.core.chat_terms import PROFILES, ChatTerms
from app.core.errors import Superseded
from app.core.records import Endpoint, Workspace
from app.core.routing import RoutingTable
from app.store.database import Registry
from app.store.file_store import FileStore
from app.store.layout import SNAPSHOT
from app.store.object_store import StoreUnavailable
from tests.control_plane.platforms import WAIT_S, spec
from tests.router.tables import NOW, Clock


class Moody(FileStore):
    """A store that may be away."""

    away = False

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        self._require_there()
        return super().read(name, start, length)

    def write(self, name: str, data: bytes) -> None:
        self._require_there()
        super().write(name, data)

    def _require_there(self) -> None:
        if self.away:
            raise StoreUnavailable("no answer")


class Trial:
    """Tables over the registry in their folder; `again` is a restart of the control plane."""

    def __init__(self, folder: Path):
        self.address = f"sqlite:///{folder / 'registry.db'}"
        self.registry = Registry(self.address)
        self.registry.put(Workspace(id="w", created_at=NOW, name="w"))
        self.store = Moody(folder / "objects")
        self.clock = Clock(1000)
        self.turn = 0
        self.unsaved = 0
        self.again()

    def again(self) -> None:
        self.turn += 1
        self.tables = RoutingTables(self.registry, self.store, self.clock, unsaved=self.count_unsaved)
        self.tables.load(self.turn)

    def count_unsaved(self) -> None:
        self.unsaved += 1

    def told(self) -> RoutingTable:
        """What routers hear."""
        return RoutingTable.model_validate_json(self.tables.wait(-1, 0) or b"")

    def saved(self) -> RoutingTable:
        """What a router finds that starts by itself."""
        return RoutingTable.model_validate_json(self.store.read(SNAPSHOT))

    def published(self) -> RoutingTable:
        self.tables.publish()
        return self.saved()

    def put(self, running_units: int = 1, **fields: Any) -> None:
        wish = spec("one", **fields)
        record = Endpoint(
            id="ep-1", created_at=NOW, workspace="w", spec=wish, state="healthy", running_units=running_units
        )
        self.registry.put(record)


@pytest.fixture
def trial(tmp_path: Path, migrated_file: Path) -> Iterator[Trial]:
    shutil.copy(migrated_file, tmp_path)
    trial = Trial(tmp_path)
    yield trial
    trial.registry.close()


@pytest.mark.parametrize(
    ("running_units", "limits", "qps"),
    [
        (1, {"qps_per_unit": 2.5}, 2.5),
        (4, {"qps_per_unit": 2.5}, 10.0),
        (0, {"qps_per_unit": 2.5}, 2.5),  # asleep: a first request must get through
        (4, {}, None),
    ],
)
def test_an_endpoints_limit_is_that_of_all_its_units(
    trial: Trial, running_units: int, limits: dict[str, float], qps: float | None
) -> None:
    trial.put(running_units, limits=limits)
    assert trial.published().routes["ep-1"].qps == qps


def test_routers_know_what_an_endpoint_serves(trial: Trial) -> None:
    trial.put(model="m-7", precision="BF16")
    route = trial.published().routes["ep-1"]
    assert (route.model, route.precision) == ("m-7", "BF16")


def test_networks_reach_the_routers_and_a_change_of_them_too(trial: Trial) -> None:
    trial.put(allowed_networks=["10.0.0.0/8"])
    before = trial.published()
    assert before.routes["ep-1"].allowed_networks == ("10.0.0.0/8",)
    trial.put()
    after = trial.published()
    assert after.routes["ep-1"].allowed_networks == ()
    assert after.number > before.number


def test_what_requests_get_and_may_ask_for_reaches_the_routers(trial: Trial) -> None:
    trial.put()
    assert trial.published().routes["ep-1"].chat == ChatTerms()
    trial.put(
        request_defaults={"profile": "maas", "max_tokens": 64, "min_p": 0.1}, features={"structured_output": True}
    )
    terms = trial.published().routes["ep-1"].chat
    assert terms.defaults == PROFILES["maas"] | {"max_tokens": 64, "min_p": 0.1}
    assert (terms.structured_output, terms.tools) == (True, False)


def test_routers_are_counted_while_they_ask(trial: Trial) -> None:
    trial.put()
    assert trial.published().routers == 1  # none has asked yet, and it shares with nobody
    trial.clock.now += ROUTER_LOST_AFTER_S
    for router in ("a", "b", "c", "a"):
        trial.tables.wait(0, 0, router)
    first = trial.published()
    assert first.routers == 3
    trial.clock.now += ROUTER_LOST_AFTER_S - 1
    trial.tables.wait(0, 0, "a")
    trial.clock.now += 1
    later = trial.published()
    assert (later.routers, later.number) == (1, first.number + 1)


def test_a_restart_does_not_give_each_router_the_whole_limit(trial: Trial) -> None:
    trial.put()
    for router in ("a", "b", "c"):
        trial.tables.wait(0, 0, router)
    assert trial.published().routers == 3
    trial.again()
    trial.tables.wait(0, 0, "a")
    assert trial.published().routers == 3
    trial.clock.now += ROUTER_LOST_AFTER_S - 1
    trial.tables.wait(0, 0, "a")
    trial.tables.wait(0, 0, "b")
    trial.clock.now += 1
    assert trial.published().routers == 2


def test_lost_routers_hold_nobody_up(trial: Trial) -> None:
    trial.put()
    current = trial.published().number
    trial.tables.wait(current - 1, 0, "lost")
    trial.clock.now += ROUTER_LOST_AFTER_S
    trial.tables.wait(current, 0, "living")
    begun = time.monotonic()
    trial.tables.wait_until_taken(WAIT_S)
    assert time.monotonic() - begun < WAIT_S / 2


def test_routers_hear_of_a_change_while_the_object_store_is_away(trial: Trial) -> None:
    trial.put()
    before = trial.published()
    trial.store.away = True
    trial.put(allowed_networks=["10.0.0.0/8"])
    trial.tables.publish()
    assert trial.told().routes["ep-1"].allowed_networks == ("10.0.0.0/8",)
    assert trial.unsaved == 1
    trial.put(allowed_networks=["10.1.0.0/16"])
    trial.tables.publish()  # nobody waits for the store twice
    assert (trial.unsaved, trial.tables.save()) == (1, False)
    trial.store.away = False
    assert trial.saved() == before
    assert trial.tables.save()
    assert trial.saved() == trial.told()
    trial.put()
    assert trial.published() == trial.told()


def test_a_slow_object_store_holds_up_no_router(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    trial.put()
    heard = []

    def write(name: str, data: bytes) -> None:
        with ThreadPoolExecutor(1) as routers:
            heard.append(routers.submit(trial.told).result(WAIT_S))

    monkeypatch.setattr(trial.store, "write", write)
    trial.tables.publish()
    assert [set(table.routes) for table in heard] == [{"ep-1"}]


def test_nobody_waits_for_a_store_that_is_away_and_slow_to_say_so(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.put()
    trial.published()
    trial.store.away = True
    trial.put(allowed_networks=["10.0.0.0/8"])
    trial.tables.publish()
    trial.store.away = False
    write, reached, let_go = trial.store.write, threading.Event(), threading.Event()

    def slow(name: str, data: bytes) -> None:
        reached.set()
        assert let_go.wait(WAIT_S)
        write(name, data)

    monkeypatch.setattr(trial.store, "write", slow)
    with ThreadPoolExecutor(2) as threads:
        saving = threads.submit(trial.tables.save)
        assert reached.wait(WAIT_S)
        trial.put(allowed_networks=["10.1.0.0/16"])
        publishing = threads.submit(trial.tables.publish)
        try:
            publishing.result(WAIT_S / 4)
        finally:
            let_go.set()
        assert not saving.result(WAIT_S)  # it is to be saved once more: there is a newer one
    assert trial.tables.save()
    assert trial.saved() == trial.told()


def test_a_start_without_the_object_store_goes_on_from_the_records(trial: Trial) -> None:
    trial.put()
    before = trial.published()
    trial.store.away = True
    trial.again()
    told = trial.told()
    assert told.routes == before.routes
    assert told.number > before.number
    trial.store.away = False
    trial.again()
    assert trial.told().number > told.number


def test_what_is_deleted_is_not_looked_at(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tombstones pile up for weeks, and each table is built in a second's part."""
    trial.put()
    (endpoint,) = trial.registry.find(Endpoint)
    trial.registry.put(endpoint.model_copy(update={"id": "ep-2", "state": "deleting", "deleted_at": NOW}))
    found: list[str] = []
    find = trial.registry.find

    def finds(kind: Any, **equals: Any) -> list[Any]:
        records = find(kind, **equals)
        found.extend(record.id for record in records)
        return records

    monkeypatch.setattr(trial.registry, "find", finds)
    assert set(trial.published().routes) == {"ep-1"}
    assert found == ["ep-1"]


def test_routers_with_a_newer_table_than_there_is_get_one_that_is_newer_still(trial: Trial) -> None:
    """After a backup of the registry was restored: they take none with a lower number."""
    trial.put()
    number = trial.published().number
    newer = RoutingTable.model_validate_json(trial.tables.wait(number + 1_000_000, 0, "a") or b"")
    assert newer.number > number + 1_000_000
    assert set(newer.routes) == {"ep-1"}
    trial.registry.take_turn()
    successor = Registry(trial.address)
    successor.take_turn()
    successor.close()
    with pytest.raises(Superseded):
        trial.tables.wait(newer.number + 1, 0, "a")  # it has that from the one that took over
