"""What the plan says, case by case: wishes and what is seen on the left, actions and verdicts on the right."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from app.core.lifecycle import (
    ApplicationStatus,
    Deploy,
    Remove,
    Seen,
    application_name,
    parse_application_name,
    plan,
    revision_of,
)
from app.core.records import Endpoint
from app.core.specs import EndpointSpec

NOW = datetime(2026, 2, 1, tzinfo=UTC)


def endpoint(identity: str = "ep-1", **fields: Any) -> Endpoint:
    spec = EndpointSpec(name="demo", model="m")
    return Endpoint(id=identity, created_at=NOW, workspace="default", spec=spec, **fields)


def seen(revision: str, status: ApplicationStatus = "running", units: int = 1, reason: str = "") -> Seen:
    return Seen("ep-1", revision, status, reason, units)


@dataclass
class Case:
    """One endpoint ep-1; its wanted revision is `new` unless told otherwise."""

    about: str
    endpoint: Endpoint
    seen: list[Seen]
    actions: list[Deploy | Remove]
    state: str | None
    serving: str | None = None
    reason: str = ""
    done: bool = False
    wanted: str | None = "new"
    problem: str = ""
    carried_out: dict[tuple[str, str], int] = field(default_factory=lambda: {("ep-1", "new"): 1, ("ep-1", "old"): 1})


SERVES_OLD = endpoint(revision="old", state="healthy")
SERVES_NEW = endpoint(revision="new", state="healthy")
DEPLOY, REMOVE_OLD, REMOVE_NEW = Deploy("ep-1", "new"), Remove("ep-1", "old"), Remove("ep-1", "new")

CASES = [
    Case("a new endpoint is deployed", endpoint(), [], [DEPLOY], "scheduling", carried_out={}),
    Case("it waits for its first unit", endpoint(), [seen("new", "starting", 0)], [], "scheduling"),
    Case("it says what it waits for", endpoint(), [seen("new", "starting", 0, "no room")], [], "scheduling",
         reason="no room"),
    Case("it serves once it runs", endpoint(), [seen("new")], [], "healthy", "new", done=True),
    Case("it stays healthy", SERVES_NEW, [seen("new")], [], "healthy", "new", done=True),
    Case("its first unit cannot start", endpoint(), [seen("new", "failed", 0, "out of memory")], [], "abnormal",
         reason="out of memory"),
    Case("a lost unit keeps the traffic waiting for the next", SERVES_NEW, [seen("new", "unhealthy", 0)], [],
         "abnormal", "new", "a unit was lost; another is starting"),
    Case("units come and go while it serves", SERVES_NEW, [seen("new", "starting", 1)], [], "scaling", "new"),
    Case("a further unit that cannot start does not stop the one that serves", SERVES_NEW,
         [seen("new", "failed", 1, "out of memory")], [], "alarm", "new", "out of memory"),
    Case("a changed scale is deployed in place", endpoint(revision="new", generation=2), [seen("new")], [DEPLOY],
         "healthy", "new"),
    Case("an empty cluster after a crash: it is deployed again", endpoint(revision="new", observed_generation=1),
         [], [DEPLOY], "scheduling", reason="waiting to be deployed", carried_out={}),
    Case("a restarted control plane deploys once more in place", SERVES_NEW, [seen("new")], [DEPLOY], "healthy", "new",
         carried_out={}),
    Case("an application that was removed by hand comes back", SERVES_NEW, [], [DEPLOY], "scheduling"),
    Case("a successor is deployed beside the one that serves", SERVES_OLD, [seen("old")], [DEPLOY], "upgrading", "old",
         carried_out={}),
    Case("the old one serves while the successor starts", SERVES_OLD, [seen("old"), seen("new", "starting", 0)], [],
         "upgrading", "old"),
    Case("also when the old one lost a unit", SERVES_OLD, [seen("old", "unhealthy", 0), seen("new", "starting", 0)], [],
         "upgrading", "old"),
    Case("also when the old one is scaling", SERVES_OLD, [seen("old", "starting", 1), seen("new", "starting", 0)], [],
         "upgrading", "old"),
    Case("a failed successor never takes down the serving revision", SERVES_OLD,
         [seen("old"), seen("new", "failed", 0, "out of memory")], [], "alarm", "old",
         "the new revision cannot serve: out of memory"),
    Case("not even one that is scaling", SERVES_OLD, [seen("old", "starting", 1), seen("new", "failed", 0, "bad")], [],
         "alarm", "old", "the new revision cannot serve: bad"),
    Case("a successor that runs takes over; the old one stays until the routers know", SERVES_OLD,
         [seen("old"), seen("new")], [], "healthy", "new", done=True),
    Case("then the old one goes", SERVES_NEW, [seen("old"), seen("new")], [REMOVE_OLD], "healthy", "new", done=True),
    Case("nobody is sent away twice", SERVES_NEW, [seen("old", "leaving"), seen("new")], [], "healthy", "new",
         done=True),
    Case("back to the old one: the successor goes", endpoint(revision="old", generation=3), [seen("old"), seen("new")],
         [Deploy("ep-1", "old"), REMOVE_NEW], "healthy", "old", wanted="old"),
    Case("a third revision replaces a successor that never served", SERVES_OLD,
         [seen("old"), seen("new", "starting", 0)], [Deploy("ep-1", "newer"), REMOVE_NEW], "upgrading", "old",
         wanted="newer"),
    Case("without its model it cannot start", endpoint(), [], [], "abnormal", reason="no such model", wanted=None,
         problem="no such model"),
    Case("a lost model never takes down the serving revision", SERVES_OLD, [seen("old")], [], "alarm", "old",
         "the new revision cannot serve: gone", wanted=None, problem="gone"),
    Case("a deleted one is drained", endpoint(state="deleting", revision="new"), [seen("new"), seen("old", "leaving")],
         [REMOVE_NEW], None),
    Case("a stopped one is drained", endpoint(state="stopped"), [seen("new")], [REMOVE_NEW], None),
    Case("a stopped one stays", endpoint(state="stopped"), [], [], None),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.about)
def test_plan(case: Case) -> None:
    wanted = {"ep-1": case.wanted} if case.wanted and case.state else {}
    problems = {"ep-1": case.problem} if case.problem else {}
    result = plan([case.endpoint], wanted, problems, case.seen, case.carried_out)
    assert result.actions == case.actions
    assert result.gone == []
    if case.state is None:
        assert result.verdicts == {}
        return
    verdict = result.verdicts["ep-1"]
    assert (verdict.state, verdict.serving, verdict.done) == (case.state, case.serving, case.done)
    if case.reason:
        assert verdict.reason == case.reason
    assert verdict.serving is None or Remove("ep-1", verdict.serving) not in result.actions


def test_deleting_with_nothing_left_is_gone() -> None:
    result = plan([endpoint(state="deleting")], {}, {}, [], {})
    assert (result.gone, result.actions, result.verdicts) == (["ep-1"], [], {})


def test_deleting_is_not_gone_while_units_drain() -> None:
    result = plan([endpoint(state="deleting")], {}, {}, [seen("new", "leaving", 0)], {})
    assert (result.gone, result.actions) == ([], [])


def test_an_unknown_application_is_removed() -> None:
    stranger = Seen("ep-9", "r9", "running", "", 1)
    result = plan([SERVES_NEW], {"ep-1": "new"}, {}, [stranger, seen("new")], {("ep-1", "new"): 1})
    assert result.actions == [Remove("ep-9", "r9")]


def random_world(rng: random.Random) -> tuple[Any, ...]:
    ids = [f"ep-{number}" for number in range(rng.randint(0, 5))]
    states = ["scheduling", "healthy", "upgrading", "alarm", "abnormal", "scaling", "stopped", "deleting"]
    endpoints = [
        endpoint(i, state=rng.choice(states), revision=rng.choice([None, "a", "b"]), generation=rng.randint(1, 2))
        for i in ids
    ]
    statuses: list[ApplicationStatus] = ["starting", "running", "unhealthy", "failed", "leaving"]
    apps = [
        Seen(i, revision, rng.choice(statuses), "why", rng.randint(0, 2))
        for i in [*ids, "ep-stranger"]
        for revision in "abc"
        if rng.random() < 0.5
    ]
    wanted = {i: rng.choice("abc") for i in ids if rng.random() < 0.8}
    problems = {i: "no model" for i in ids if i not in wanted}
    carried_out = {(i, revision): 1 for i in ids for revision in "abc" if rng.random() < 0.5}
    return endpoints, wanted, problems, apps, carried_out


@pytest.mark.parametrize("seed", range(200))
def test_in_any_world_the_plan_is_sound(seed: int) -> None:
    world = random_world(random.Random(seed))
    endpoints, wanted, _, apps, _ = world
    result = plan(*world)
    assert result == plan(*world)  # the same inputs give the same plan
    removed = {(action.endpoint_id, action.revision) for action in result.actions if isinstance(action, Remove)}
    status = {(app.endpoint_id, app.revision): app for app in apps}
    for one in endpoints:
        verdict = result.verdicts.get(one.id)
        if verdict is None:
            continue
        assert (one.id, verdict.serving) not in removed
        assert (one.id, wanted.get(one.id)) not in removed
        now = status.get((one.id, one.revision or ""))
        if now and now.status != "leaving" and now.running_units:
            assert verdict.serving is not None  # what serves is given up for a successor that runs, or not at all
    assert not removed & {key for key, app in status.items() if app.status == "leaving"}


def test_a_revision_changes_exactly_with_its_parts() -> None:
    assert revision_of("0.1", "{}") == revision_of("0.1", "{}") == "dd286f1f"
    assert len({revision_of("a", "b"), revision_of("ab", ""), revision_of("a", "c"), revision_of("b", "a")}) == 4


def test_application_names_come_back() -> None:
    assert parse_application_name(application_name("ep-1-x", "0a1b")) == ("ep-1-x", "0a1b")
    for other in ("router", "control_plane", "ep-1", "x.r-1"):
        assert parse_application_name(other) is None
