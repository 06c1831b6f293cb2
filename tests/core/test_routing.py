from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from app.core.errors import NotFound, Unauthorized, Unavailable
from app.core.keys import bearer_hash, hash_key
from app.core.routing import Grant, Route, RoutingTable, Target

NOW = datetime(2026, 2, 1, tzinfo=UTC)
KEY, EXPIRING, UNKNOWN = (f"mu-{letter * 43}" for letter in "keu")
"""The same in every process: what tests are called must not change."""
MINE = Grant(workspace="mine", role="inference")
TARGETS = (Target(revision="r1", application="app"),)


def route(endpoint_id: str, name: str, workspace: str = "mine", ready: bool = True, age_s: int = 0) -> Route:
    return Route(
        endpoint_id=endpoint_id,
        workspace=workspace,
        name=name,
        state="healthy" if ready else "scheduling",
        reason="" if ready else "the first unit is starting",
        created_at=NOW - timedelta(seconds=age_s),
        targets=TARGETS if ready else (),
    )


ROUTES = [
    route("ep-1", "one"),
    route("ep-2", "twice"),
    route("ep-3", "twice", age_s=5),
    route("ep-4", "starting", ready=False),
    route("ep-5", "one", workspace="theirs"),
    route("ep-6", "secret", workspace="theirs"),
]
TABLE = RoutingTable(
    number=1,
    routes={r.endpoint_id: r for r in ROUTES},
    grants={
        hash_key(KEY): MINE,
        hash_key(EXPIRING): Grant(workspace="mine", role="inference", expires_at=NOW),
    },
)


def grant_of(header: str | None, now: datetime = NOW) -> Grant:
    return TABLE.grant_for(bearer_hash(header), now)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", f"Basic {KEY}", KEY])
def test_no_bearer_key_is_told_so(header: str | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        grant_of(header)
    assert caught.value.body()["error"]["code"] == "missing_api_key"


@pytest.mark.parametrize("key", ["mu-short", "sk-" + "a" * 43, KEY + "x", KEY[:-1], UNKNOWN, EXPIRING])
def test_malformed_unknown_and_expired_keys_look_alike(key: str) -> None:
    with pytest.raises(Unauthorized, match="not valid: unknown, revoked or expired") as caught:
        grant_of(f"Bearer {key}")
    assert key not in str(caught.value.body())


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY} "])
def test_a_good_key_is_found(header: str) -> None:
    assert grant_of(header) == MINE


def test_a_key_works_until_the_moment_it_expires() -> None:
    assert grant_of(f"Bearer {EXPIRING}", NOW - timedelta(microseconds=1)).workspace == "mine"


def test_an_endpoint_is_found_by_id_and_by_a_name_of_its_own() -> None:
    assert TABLE.route_for("ep-1", MINE).endpoint_id == "ep-1"
    assert TABLE.route_for("one", MINE).endpoint_id == "ep-1"  # theirs has the same name
    assert TABLE.route_for("ep-2", MINE).endpoint_id == "ep-2"


def test_what_is_not_mine_looks_like_what_does_not_exist() -> None:
    told = set()
    for model in ("nothing", "ep-9", "ep-6", "secret", "twice", ""):
        with pytest.raises(NotFound) as caught:
            TABLE.route_for(model, MINE)
        told.add(str(caught.value.body()))
    assert len(told) == 1


def test_a_key_for_some_endpoints_sees_no_others() -> None:
    narrow = Grant(workspace="mine", role="inference", endpoints=("ep-2",))
    assert TABLE.route_for("ep-2", narrow).endpoint_id == "ep-2"
    with pytest.raises(NotFound):
        TABLE.route_for("ep-1", narrow)
    assert [r.endpoint_id for r in TABLE.visible_to(narrow)] == ["ep-2"]


def test_an_endpoint_that_is_not_ready_says_why() -> None:
    with pytest.raises(Unavailable, match="ep-4 is scheduling: the first unit is starting"):
        TABLE.route_for("ep-4", MINE).require_target()
    TABLE.route_for("ep-1", MINE).require_target()


def test_the_list_is_mine_alone_and_oldest_first() -> None:
    assert [r.endpoint_id for r in TABLE.visible_to(MINE)] == ["ep-3", "ep-1", "ep-2", "ep-4"]


def test_a_table_survives_json() -> None:
    assert RoutingTable.model_validate_json(TABLE.model_dump_json()) == TABLE


def weighted(*weights: int) -> Route:
    targets = tuple(Target(revision=f"r{i}", application=f"a{i}", weight=weight) for i, weight in enumerate(weights))
    return route("ep-1", "one").model_copy(update={"targets": targets})


@pytest.mark.parametrize(
    ("weights", "shares"),
    [((100,), {"r0": 100}), ((90, 10), {"r0": 90, "r1": 10}), ((0, 100), {"r1": 100}), ((1, 2, 1), {"r0": 25, "r1": 50,
                                                                                                     "r2": 25})],
)  # fmt: skip
def test_traffic_is_split_by_weight(weights: tuple[int, ...], shares: dict[str, int]) -> None:
    assert Counter(weighted(*weights).choose(draw / 100).revision for draw in range(100)) == shares


def test_the_application_goes_with_the_revision() -> None:
    assert weighted(1, 1).choose(0.0) == Target(revision="r0", application="a0", weight=1)
    assert weighted(1, 1).choose(0.9999999999999999) == Target(revision="r1", application="a1", weight=1)
