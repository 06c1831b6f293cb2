"""What the routing table says of limits, networks and the routers that share them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.control_plane.services.routing_table import ROUTER_LOST_AFTER_S, RoutingTables
from app.core.records import Endpoint, Workspace
from app.core.routing import RoutingTable
from app.store.database import Registry
from app.store.file_store import FileStore
from app.store.layout import SNAPSHOT
from tests.control_plane.platforms import WAIT_S, spec
from tests.router.tables import NOW, Clock


class Trial:
    """Tables over a registry of their own; `again` is a restart of the control plane."""

    def __init__(self, folder: Path):
        self.registry = Registry(f"sqlite:///{folder / 'registry.db'}")
        self.registry.migrate()
        self.registry.put(Workspace(id="w", created_at=NOW, name="w"))
        self.store = FileStore(folder / "objects")
        self.clock = Clock(1000)
        self.turn = 0
        self.again()

    def again(self) -> None:
        self.turn += 1
        self.tables = RoutingTables(self.registry, self.store, self.clock)
        self.tables.load(self.turn)

    def published(self) -> RoutingTable:
        self.tables.publish()
        return RoutingTable.model_validate_json(self.store.read(SNAPSHOT))

    def put(self, running_units: int = 1, **fields: Any) -> None:
        wish = spec("one", **fields)
        record = Endpoint(
            id="ep-1", created_at=NOW, workspace="w", spec=wish, state="healthy", running_units=running_units
        )
        self.registry.put(record)


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
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


def test_networks_reach_the_routers_and_a_change_of_them_too(trial: Trial) -> None:
    trial.put(allowed_networks=["10.0.0.0/8"])
    before = trial.published()
    assert before.routes["ep-1"].allowed_networks == ("10.0.0.0/8",)
    trial.put()
    after = trial.published()
    assert after.routes["ep-1"].allowed_networks == ()
    assert after.number > before.number


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
