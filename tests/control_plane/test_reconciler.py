"""From records to the cluster: declared endpoints, revisions, restarts, and the numbers of routing tables."""

import subprocess
import sys
from typing import Any

import pytest

from app.control_plane.platform import Platform
from app.control_plane.reconciler import LOOK_EVERY_S
from app.core.lifecycle import revision_of
from app.core.records import Event
from app.core.routing import RoutingTable
from app.core.specs import MACHINE_TYPES
from app.settings import Settings
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import (
    ONE_DATABASE,
    WAIT_S,
    FakeCluster,
    NoCluster,
    admin_key,
    by_name,
    client_of,
    publish_model,
    saved_table,
    spec,
    specs,
    table_of,
    until,
)


def until_healthy(platform: Platform, *names: str) -> None:
    def healthy() -> bool:
        platform.endpoint_loop.nudge()
        found = by_name(platform)
        return all(
            name in found
            and found[name].state == "healthy"
            and found[name].observed_generation == found[name].generation
            for name in names
        )

    until(healthy)


def test_adding_a_declared_endpoint_leaves_the_others_untouched(platform: Platform) -> None:
    platform.declarations.declare(specs("one", "two"))
    until_healthy(platform, "one", "two")
    before = by_name(platform)
    platform.declarations.declare(specs("one", "two", "three"))
    until_healthy(platform, "three")
    after = by_name(platform)
    assert {name: after[name] for name in before} == before
    assert after["three"].managed_by == "serve_config"


def test_a_changed_declaration_is_a_new_wish_for_that_one_alone(platform: Platform) -> None:
    platform.declarations.declare(specs("one", "two"))
    until_healthy(platform, "one", "two")
    before = by_name(platform)
    platform.declarations.declare([spec("one", max_model_len=1024), spec("two")])
    until_healthy(platform, "one")
    after = by_name(platform)
    assert after["two"] == before["two"]
    assert (after["one"].id, after["one"].generation) == (before["one"].id, before["one"].generation + 1)


def test_what_is_declared_no_more_is_deleted_and_the_apis_stay(platform: Platform, cluster: FakeCluster) -> None:
    platform.declarations.declare(specs("one", "two"))
    mine = platform.endpoints.create("default", spec("mine"))
    until_healthy(platform, "one", "two", "mine")
    removed = by_name(platform)["two"].id
    platform.declarations.declare(specs("one"))
    found = by_name(platform)
    assert "two" not in found or found["two"].state == "deleting"
    until(lambda: set(by_name(platform)) == {"one", "mine"})
    assert removed not in {endpoint_id for endpoint_id, _ in cluster.applications}
    assert by_name(platform)["mine"].id == mine.id


def test_a_declared_name_that_the_api_holds_is_a_conflict_and_changes_nothing(platform: Platform) -> None:
    platform.endpoints.create("default", spec("mine"))
    until_healthy(platform, "mine")
    before = by_name(platform)
    platform.declarations.declare([spec("mine", max_model_len=64)])
    assert by_name(platform) == before


async def test_a_declared_name_that_the_api_holds_is_told_once_and_shown(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    mine = platform.endpoints.create("default", spec("mine")).id

    def told() -> int:
        return platform.registry.count(Event, subject=mine, kind="conflict")

    async def shown() -> str | None:
        async with client_of(platform, admin_key(platform.settings)) as client:
            conflict: str | None = (await client.get(f"/endpoints/{mine}")).json()["conflict"]
            return conflict

    assert (told(), await shown()) == (0, None)
    with caplog.at_level("WARNING", "ray.serve"):
        for _ in range(3):  # as three starts do
            platform.declarations.declare([spec("mine")])
    assert told() == 1
    assert len([record for record in caplog.records if "declares another mine" in record.getMessage()]) == 3
    assert "declares another mine" in (await shown() or "")
    platform.endpoints.patch("default", mine, {"description": "changed"})
    platform.declarations.declare([spec("mine")])
    assert told() == 2
    platform.endpoints.patch("default", mine, {"name": "other"})
    assert await shown() is None
    platform.declarations.declare([spec("mine")])
    assert (told(), by_name(platform)["mine"].managed_by) == (2, "serve_config")


def test_one_failing_deploy_holds_up_no_other(open_platform: OpenPlatform, cluster: FakeCluster) -> None:
    first: list[str] = []

    def refuses(endpoint_id: str) -> bool:
        if not first:
            first.append(endpoint_id)
        return endpoint_id == first[0]

    cluster.refuses = refuses
    platform = open_platform(*specs("one", "two", "three"))
    until(lambda: sum(e.state == "healthy" for e in by_name(platform).values()) == 2)
    cluster.refuses = lambda _: False
    until_healthy(platform, "one", "two", "three")


def test_an_unknown_machine_type_in_a_serve_config_hurts_no_other(open_platform: OpenPlatform) -> None:
    platform = open_platform(spec("bad", machine_type="gpu-9"), spec("good"))
    until_healthy(platform, "good")
    bad = by_name(platform)["bad"]
    assert bad.state == "abnormal"
    assert "machine_type" in bad.reason


def test_a_model_published_later_is_found(open_platform: OpenPlatform, settings: Settings) -> None:
    now = [1000.0]
    platform = open_platform(spec("early", model="Model-2"), clock=lambda: now[0])
    until(lambda: by_name(platform)["early"].state == "abnormal")
    assert "Model-2" in by_name(platform)["early"].reason
    publish_model(settings, "m-2", "Model-2")
    now[0] += LOOK_EVERY_S
    until_healthy(platform, "early")


def test_after_a_restart_on_an_empty_cluster_everything_runs_again(
    open_platform: OpenPlatform, cluster: FakeCluster
) -> None:
    platform = open_platform(*specs("one", "two"))
    platform.endpoints.create("default", spec("mine"))
    until_healthy(platform, "one", "two", "mine")
    before = {name: (e.id, e.revision) for name, e in by_name(platform).items()}
    again = FakeCluster()
    platform = open_platform(*specs("one", "two"), on=again)
    until_healthy(platform, "one", "two", "mine")
    assert {name: (e.id, e.revision) for name, e in by_name(platform).items()} == before
    assert set(again.applications) == set(cluster.applications) == set(before.values())


def test_no_state_from_before_a_restart_is_shown(open_platform: OpenPlatform) -> None:
    until_healthy(open_platform(*specs("one")), "one")
    platform = open_platform(*specs("one"), on=NoCluster())
    assert by_name(platform)["one"].state == "scheduling"
    table = table_of(platform)
    assert all(route.targets == () for route in table.routes.values())


@pytest.mark.parametrize(
    ("fields", "restarts"),
    [
        ({"engine": {"max_num_seqs": 32}}, True),
        ({"engine": {"prefix_caching": False}}, True),
        ({"engine": {"threads": 3}}, True),
        ({"max_model_len": 64}, True),
        ({"scale": {"min_units": 1, "max_units": 3}}, False),
        ({"description": "other words"}, False),
    ],
)
def test_only_what_units_are_told_makes_a_new_revision(
    platform: Platform, cluster: FakeCluster, fields: dict[str, Any], restarts: bool
) -> None:
    platform.declarations.declare(specs("one"))
    until_healthy(platform, "one")
    before = by_name(platform)["one"]
    platform.declarations.declare([spec("one", **fields)])
    until_healthy(platform, "one")
    after = by_name(platform)["one"]
    assert (after.revision != before.revision) is restarts
    until(lambda: set(cluster.applications) == {(after.id, after.revision)})
    assert len(cluster.deploys) == 2  # also a change in place is deployed


def test_a_wish_that_comes_while_a_step_runs_is_not_taken_for_carried_out(
    platform: Platform, cluster: FakeCluster
) -> None:
    platform.declarations.declare(specs("one"))
    until_healthy(platform, "one")
    wishes = [[spec("one", description="newer")]]

    def wish() -> None:
        if wishes:
            platform.declarations.declare(wishes.pop())

    cluster.on_observe = wish
    cluster.refuses = lambda _: True  # so that the newer wish is never carried out
    until(lambda: platform.endpoint_loop.nudge() or len(cluster.deploys) > 2)
    endpoint = by_name(platform)["one"]
    assert (endpoint.generation, endpoint.observed_generation) == (2, 1)


def test_the_same_parts_give_the_same_revision_in_another_process() -> None:
    program = "from app.core.lifecycle import revision_of; print(revision_of('1', '{\"a\": 1}'))"
    command = [sys.executable, "-c", program]
    other = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT_S)
    assert other.stdout.strip() == revision_of("1", '{"a": 1}')


def test_routing_tables_only_grow_in_number(open_platform: OpenPlatform, settings: Settings) -> None:
    numbers = []
    for names in (("one",), ("one", "two"), ()):
        platform = open_platform(*specs(*names))
        until_healthy(platform, *names)
        until(lambda platform=platform, names=names: set(by_name(platform)) == set(names))
        numbers.append(saved_table(settings).number)
    assert numbers == sorted(set(numbers))


def test_a_waiting_router_hears_of_a_new_table(platform: Platform) -> None:
    current = table_of(platform).number
    assert platform.tables.wait(current, 0.01) is None
    platform.endpoints.create("default", spec("one"))
    newer = platform.tables.wait(current, WAIT_S)
    assert newer is not None
    assert RoutingTable.model_validate_json(newer).number > current


@ONE_DATABASE
def test_a_failed_start_is_tried_again_after_longer_and_longer_waits(
    open_platform: OpenPlatform, cluster: FakeCluster
) -> None:
    now = [1000.0]
    platform = open_platform(spec("one"), clock=lambda: now[0])
    until_healthy(platform, "one")
    endpoint_id = by_name(platform)["one"].id
    platform.close()  # from here on step by step
    tries = []
    for _ in range(400):
        cluster.becomes(endpoint_id, "failed", "no weights")
        deployed = len(cluster.deploys)
        platform.reconciler.step()
        if len(cluster.deploys) > deployed:
            tries.append(now[0])
        now[0] += 1.0
    waits = [round(later - earlier) for earlier, later in zip([1000.0, *tries], tries, strict=False)]
    assert waits[:2] == sorted(waits[:2])
    assert 55 <= waits[0] <= 65
    assert waits[1] >= 115


@ONE_DATABASE
def test_a_step_that_the_cluster_refuses_is_told_and_tried_again_after_longer_and_longer_waits(
    open_platform: OpenPlatform, cluster: FakeCluster
) -> None:
    now = [1000.0]
    platform = open_platform(clock=lambda: now[0])
    for loop in platform.loops:
        loop.stop()
    cluster.refuses = lambda _: True
    endpoint = platform.endpoints.create("default", spec("one"))
    tries = []
    for _ in range(200):
        deployed = len(cluster.deploys)
        platform.reconciler.step()
        if len(cluster.deploys) > deployed:
            tries.append(now[0] - 1000)
        now[0] += 1.0
    assert tries == [0, 1, 3, 7, 15, 31, 63, 123, 183]
    refused = by_name(platform)["one"]
    assert (refused.state, refused.reason) == ("abnormal", "it could not be deployed: no")
    kinds = [event.kind for event in platform.registry.find(Event, subject=endpoint.id)]
    assert kinds == ["created", "scheduling", "abnormal"]  # each attempt is not news

    platform.endpoints.patch("default", endpoint.id, {"description": "a new wish is tried at once"})
    cluster.refuses = lambda _: False
    for _ in range(3):
        platform.reconciler.step()
    assert by_name(platform)["one"].state == "healthy"


@ONE_DATABASE
def test_why_the_cluster_refuses_is_told_without_secrets(
    open_platform: OpenPlatform, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("s3://me:hunter22@host is away\nAccessDenied: password=hunter22 in /etc/aws/config")

    monkeypatch.setattr(cluster, "deploy", refuse)
    platform = open_platform()
    for loop in platform.loops:
        loop.stop()
    platform.endpoints.create("default", spec("one"))
    for _ in range(2):
        platform.reconciler.step()
    told = by_name(platform)["one"].reason
    assert told == "it could not be deployed: AccessDenied: password=*** in config"


def test_a_change_in_place_that_is_refused_keeps_the_traffic(open_platform: OpenPlatform, cluster: FakeCluster) -> None:
    platform = open_platform(*specs("one"))
    until_healthy(platform, "one")
    for loop in platform.loops:
        loop.stop()
    before = by_name(platform)["one"]
    cluster.refuses = lambda _: True
    platform.declarations.declare([spec("one", scale={"max_units": 3})])
    platform.reconciler.step()
    platform.reconciler.step()
    now = by_name(platform)["one"]
    assert (now.state, now.revision, now.running_units) == ("alarm", before.revision, 1)
    assert now.observed_generation < now.generation


def test_an_object_store_that_is_away_holds_up_no_endpoint_that_has_what_it_needs(
    open_platform: OpenPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = open_platform(spec("early", model="Model-2"))

    def away() -> None:
        raise OSError("no such store")

    monkeypatch.setattr(platform.models, "adopt", away)
    platform.declarations.declare([spec("early", model="Model-2"), spec("one")])
    until_healthy(platform, "one")
    assert by_name(platform)["early"].state == "abnormal"


def test_another_machine_is_another_revision_though_units_are_told_the_same(open_platform: OpenPlatform) -> None:
    """Serve would replace the units in place, the old ones first."""
    platform = open_platform()
    endpoint = platform.endpoints.create("default", spec("one"))
    told = platform.units.of(endpoint)
    before = platform.units.revision(endpoint, told)
    assert platform.units.revision(endpoint, told) == before
    larger = MACHINE_TYPES["cpu-small"].model_copy(update={"cpus": 4.0})
    again = open_platform(machine_types=[larger])
    assert again.units.of(endpoint) == told
    assert again.units.revision(endpoint, told) != before
