"""What the plan says, case by case: wishes and what is seen on the left, actions and verdicts on the right."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from app.core.lifecycle import (
    ApplicationStatus,
    Deploy,
    Refused,
    Remove,
    Seen,
    Verdict,
    application_name,
    parse_application_name,
    plan,
    revision_of,
)
from app.core.records import Endpoint, EndpointState
from app.core.specs import EndpointSpec, ScaleSpec

NOW = datetime(2026, 2, 1, tzinfo=UTC)


def endpoint(identity: str = "ep-1", min_units: int = 1, **fields: Any) -> Endpoint:
    spec = EndpointSpec(name="demo", model="m", scale=ScaleSpec(min_units=min_units, max_units=4))
    return Endpoint(id=identity, created_at=NOW, workspace="default", spec=spec, **fields)


def seen(
    revision: str, status: ApplicationStatus = "running", units: int = 1, reason: str = "", phase: str = ""
) -> Seen:
    return Seen("ep-1", revision, status, reason, units, phase)


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
    Case("it says what its first unit does", endpoint(), [seen("new", "starting", 0, phase="checking weights")], [],
         "scheduling", reason="the first unit is checking weights"),
    Case("and its next ones, if it needs more", endpoint(), [seen("new", "starting", 1, phase="waiting for 1 CPU")],
         [], "scheduling", reason="a further unit is waiting for 1 CPU"),
    Case("it keeps its traffic while Serve's next controller finds its units again", SERVES_NEW,
         [seen("new", "starting", 0)], [], "scaling", "new", reason="units are starting or leaving"),
    Case("it serves once it runs", endpoint(), [seen("new")], [], "healthy", "new", done=True),
    Case("it stays healthy", SERVES_NEW, [seen("new")], [], "healthy", "new", done=True),
    Case("its first unit cannot start", endpoint(), [seen("new", "failed", 0, "out of memory")], [], "abnormal",
         reason="out of memory"),
    Case("a lost unit keeps the traffic waiting for the next", SERVES_NEW, [seen("new", "unhealthy", 0)], [],
         "abnormal", "new", "a unit was lost; another is starting"),
    Case("one that was woken in vain says why, and nobody waits any more", endpoint(revision="new", state="waking"),
         [Seen("ep-1", "new", "unhealthy", "out of memory", cannot_start=True)], [], "abnormal", None, "out of memory"),
    Case("one more unit that cannot start takes nothing from those that run", SERVES_NEW,
         [Seen("ep-1", "new", "unhealthy", "out of memory", 1, cannot_start=True)], [], "alarm", "new",
         "out of memory"),
    Case("it is woken again once it sleeps again", endpoint(min_units=0, state="abnormal"), [seen("new", units=0)], [],
         "sleeping", "new", done=True),
    Case("units come and go while it serves", SERVES_NEW, [seen("new", "starting", 1)], [], "scaling", "new"),
    Case("another that it waits for says what it does", SERVES_NEW, [seen("new", "unhealthy", 0, phase="checking")],
         [], "abnormal", "new", "a unit was lost; another is checking"),
    Case("further units say what they do", SERVES_NEW, [seen("new", "starting", 1, phase="checking weights")], [],
         "scaling", "new", "a further unit is checking weights"),
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
    Case("the successor says what it does", SERVES_OLD,
         [seen("old"), seen("new", "starting", 0, phase="checking weights")], [], "upgrading", "old",
         "a new revision is starting: checking weights"),
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


ASLEEP = endpoint(min_units=0, revision="new", state="sleeping")
CARRIED_OUT = {("ep-1", "new"): 1}


def verdict_on(one: Endpoint, *apps: Seen, refused: Refused | None = None) -> Verdict:
    """Of an endpoint whose wanted revision `new` has been deployed."""
    refusals = {"ep-1": refused} if refused else {}
    result = plan([one], {"ep-1": "new"}, {}, apps, CARRIED_OUT, refusals)
    return (result.verdicts | result.resting)["ep-1"]


@pytest.mark.parametrize(
    ("one", "status", "running", "target", "state", "serving"),
    [
        (ASLEEP, "running", 0, 0, "sleeping", "new"),
        (ASLEEP, "running", 0, 1, "waking", "new"),
        (ASLEEP, "running", 1, 1, "healthy", "new"),
        (ASLEEP, "running", 1, 0, "scaling", "new"),  # falling asleep
        (ASLEEP, "running", 1, 2, "scaling", "new"),
        (ASLEEP, "starting", 0, 0, "sleeping", "new"),  # changed in place
        (ASLEEP, "starting", 0, 1, "waking", "new"),
        (endpoint(min_units=0), "starting", 0, 1, "scheduling", None),  # it has not proved that it can serve
        (endpoint(min_units=0), "failed", 0, 1, "abnormal", None),
        (endpoint(min_units=0), "running", 1, 1, "healthy", "new"),
        (SERVES_NEW, "running", 1, 3, "scaling", "new"),
        (SERVES_NEW, "running", 3, 1, "scaling", "new"),
        (SERVES_NEW, "running", 0, 1, "healthy", "new"),  # whoever keeps a unit up never sleeps
    ],
)
def test_units_come_and_go_with_the_traffic(
    one: Endpoint, status: ApplicationStatus, running: int, target: int, state: str, serving: str | None
) -> None:
    verdict = verdict_on(one, Seen("ep-1", "new", status, running_units=running, target_units=target))
    assert (verdict.state, verdict.serving) == (state, serving)
    assert (verdict.running_units, verdict.target_units) == (running, target)


def test_what_wakes_says_what_it_does() -> None:
    waking = Seen("ep-1", "new", "running", phase="checking weights", target_units=1)
    assert verdict_on(ASLEEP, waking).reason == "a unit is checking weights"


def test_units_of_a_successor_count_as_coming() -> None:
    old = Seen("ep-1", "old", "running", running_units=2, target_units=2)
    new = Seen("ep-1", "new", "starting", starting_units=1, target_units=3)
    verdict = verdict_on(SERVES_OLD, old, new)
    assert (verdict.running_units, verdict.starting_units, verdict.target_units) == (2, 1, 3)


def test_the_target_is_the_least_there_may_be_while_nobody_knows() -> None:
    assert verdict_on(endpoint(min_units=2)).target_units == 2


def test_a_stopped_one_is_done_once_its_units_are_gone() -> None:
    stopped = endpoint(state="stopped", reason="stopped by a caller")
    drains = verdict_on(stopped, seen("new", "leaving", 1))
    assert (drains.state, drains.running_units, drains.done) == ("stopped", 1, False)
    rests = verdict_on(stopped)
    assert (rests.reason, rests.serving, rests.running_units, rests.done) == ("stopped by a caller", None, 0, True)


def test_a_refused_step_waits_and_says_why_and_the_traffic_stays() -> None:
    later = {"ep-1": Refused("it could not be deployed: no", too_early=True)}
    again = {"ep-1": Refused("it could not be deployed: no", too_early=False)}
    for refusals, actions in ((later, []), (again, [DEPLOY])):
        for one, apps, state, serving in (
            (endpoint(), [], "abnormal", None),
            (endpoint(revision="new", generation=2), [seen("new")], "alarm", "new"),
            (SERVES_OLD, [seen("old")], "alarm", "old"),
        ):
            result = plan([one], {"ep-1": "new"}, {}, apps, {}, refusals)
            assert result.actions == actions
            verdict = result.verdicts["ep-1"]
            assert (verdict.state, verdict.serving) == (state, serving)
            assert verdict.reason == "it could not be deployed: no"


@pytest.mark.parametrize("state", ["stopped", "deleting"])
def test_a_removal_that_is_refused_waits_too(state: EndpointState) -> None:
    resting = endpoint(state=state)
    for too_early, actions in ((True, []), (False, [REMOVE_NEW])):
        refusals = {"ep-1": Refused("no", too_early)}
        assert plan([resting], {}, {}, [seen("new")], {}, refusals).actions == actions


def test_a_model_that_is_gone_says_more_than_a_step_that_was_refused_before() -> None:
    result = plan([endpoint()], {}, {"ep-1": "no model"}, [], {}, {"ep-1": Refused("no", too_early=False)})
    assert result.verdicts["ep-1"].reason == "no model"


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
    endpoints = [
        endpoint(
            i,
            rng.randint(0, 1),
            state=rng.choice(get_args(EndpointState)),
            revision=rng.choice([None, "a", "b"]),
            generation=rng.randint(1, 2),
        )
        for i in ids
    ]
    statuses: list[ApplicationStatus] = ["starting", "running", "unhealthy", "failed", "leaving"]
    apps = [
        Seen(i, revision, rng.choice(statuses), "why", rng.randint(0, 2), target_units=rng.choice([None, 0, 1, 2]))
        for i in [*ids, "ep-stranger"]
        for revision in "abc"
        if rng.random() < 0.5
    ]
    wanted = {i: rng.choice("abc") for i in ids if rng.random() < 0.8}
    problems = {i: "no model" for i in ids if i not in wanted}
    carried_out = {(i, revision): 1 for i in ids for revision in "abc" if rng.random() < 0.5}
    refused = {i: Refused("no", rng.random() < 0.5) for i in ids if rng.random() < 0.2}
    return endpoints, wanted, problems, apps, carried_out, refused


@pytest.mark.parametrize("seed", range(200))
def test_in_any_world_the_plan_is_sound(seed: int) -> None:
    world = random_world(random.Random(seed))
    endpoints, wanted, _, apps, _, refused = world
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
    assert not {action.endpoint_id for action in result.actions} & {i for i, r in refused.items() if r.too_early}


def test_a_revision_changes_exactly_with_its_parts() -> None:
    assert revision_of("0.1", "{}") == revision_of("0.1", "{}") == "dd286f1f"
    assert len({revision_of("a", "b"), revision_of("ab", ""), revision_of("a", "c"), revision_of("b", "a")}) == 4


def test_application_names_come_back() -> None:
    assert parse_application_name(application_name("ep-1-x", "0a1b")) == ("ep-1-x", "0a1b")
    for other in ("router", "control_plane", "ep-1", "x.r-1"):
        assert parse_application_name(other) is None


def test_what_waits_for_its_model_is_scheduling_and_keeps_what_serves() -> None:
    told = "its model is preparing (copying 40 %)"
    fresh = plan([endpoint()], {}, {}, [], {}, awaited={"ep-1": told})
    assert fresh.actions == []
    assert (fresh.verdicts["ep-1"].state, fresh.verdicts["ep-1"].reason) == ("scheduling", told)
    serving = endpoint(state="healthy", revision="old")
    changed = plan([serving], {}, {}, [seen("old")], {}, awaited={"ep-1": told})
    assert changed.actions == []
    verdict = changed.verdicts["ep-1"]
    assert (verdict.state, verdict.reason, verdict.serving) == ("upgrading", told, "old")
