"""/v1/api-keys: issuing, revoking, and what a key lets its holder see."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.control_plane.args import ControlPlaneArgs
from app.control_plane.deployment import asgi
from app.control_plane.platform import Platform
from app.control_plane.services import keys as keys_service
from app.control_plane.services.keys import ADMIN_KEY_ID
from app.core.keys import hash_key, issue_key, well_formed
from app.core.records import DEFAULT_WORKSPACE, ApiKey
from app.settings import Settings
from tests.control_plane.clocks import WallClock
from tests.control_plane.conftest import ClientFor
from tests.control_plane.platforms import ONE_DATABASE, FakeCluster, by_name, saved_table, spec

LIMIT = ControlPlaneArgs().keys_per_role


async def test_a_key_is_shown_once_and_works_at_once(
    admin: httpx.AsyncClient, client_for: ClientFor, settings: Settings
) -> None:
    answer = await admin.post("/api-keys", json={"role": "developer", "description": "mine"})
    issued = answer.json()
    assert answer.status_code == 201
    assert well_formed(issued["key"])
    assert (await client_for(issued["key"]).get("/endpoints")).status_code == 200
    assert hash_key(issued["key"]) in saved_table(settings).grants

    listed = await admin.get("/api-keys")
    assert [key["id"] for key in listed.json()["data"]] == [ADMIN_KEY_ID, issued["id"]]
    one = await admin.get(f"/api-keys/{issued['id']}")
    assert (one.json()["role"], one.json()["description"], one.json()["prefix"]) == (
        "developer",
        "mine",
        issued["key"][:9],
    )
    for shown in (listed.text, one.text):
        assert issued["key"] not in shown
    for shown in (answer.text, listed.text, one.text):
        assert hash_key(issued["key"]) not in shown
        assert "hash" not in shown


async def test_a_revoked_key_stops_and_leaves_the_routing_table(
    admin: httpx.AsyncClient, client_for: ClientFor, settings: Settings
) -> None:
    issued = (await admin.post("/api-keys", json={"role": "developer"})).json()
    number = saved_table(settings).number
    assert (await admin.delete(f"/api-keys/{issued['id']}")).status_code == 400  # must be meant
    assert (await admin.delete(f"/api-keys/{issued['id']}?confirm=DELETE")).status_code == 204
    assert hash_key(issued["key"]) not in saved_table(settings).grants
    assert saved_table(settings).number > number
    assert (await client_for(issued["key"]).get("/endpoints")).status_code == 401
    assert (await admin.get(f"/api-keys/{issued['id']}")).status_code == 404
    assert (await admin.delete(f"/api-keys/{issued['id']}?confirm=DELETE")).status_code == 404


async def test_there_are_at_most_five_keys_of_a_role(admin: httpx.AsyncClient) -> None:
    assert LIMIT == 5
    for role in ("admin", "developer", "inference"):
        issued = [await admin.post("/api-keys", json={"role": role}) for _ in range(LIMIT + 1)]
        assert [answer.status_code for answer in issued] == [201] * LIMIT + [409]
        await admin.delete(f"/api-keys/{issued[0].json()['id']}?confirm=DELETE")
        assert (await admin.post("/api-keys", json={"role": role})).status_code == 201


async def test_how_many_is_the_operators_to_say(open_platform: Callable[..., Platform]) -> None:
    keys = open_platform(keys_per_role=1).keys
    keys.issue(DEFAULT_WORKSPACE, "inference", "")
    with pytest.raises(Exception, match="1 live inference keys already, and may have 1"):
        keys.issue(DEFAULT_WORKSPACE, "inference", "")
    keys.issue(DEFAULT_WORKSPACE, "developer", "")


async def test_only_admins_see_and_make_keys(admin: httpx.AsyncClient, client_for: ClientFor) -> None:
    developer = client_for((await admin.post("/api-keys", json={"role": "developer"})).json()["key"])
    assert (await developer.get("/api-keys")).status_code == 403
    assert (await developer.get(f"/api-keys/{ADMIN_KEY_ID}")).status_code == 403
    assert (await developer.post("/api-keys", json={})).status_code == 403
    assert (await developer.delete(f"/api-keys/{ADMIN_KEY_ID}?confirm=DELETE")).status_code == 403


@ONE_DATABASE
async def test_wrong_wishes_are_refused_by_field(admin: httpx.AsyncClient) -> None:
    wishes: list[tuple[dict[str, Any], str]] = [
        ({"role": "root"}, "role"),
        ({"description": "d" * 101}, "description"),
        ({"description": "a\x00b"}, "description"),
        ({"x": 1}, "x"),
        ({"endpoints": []}, "endpoints"),
        ({"endpoints": ["ep-9"]}, "endpoints[0]"),
        ({"endpoints": "ep-9"}, "endpoints"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2999-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": 32503680000}, "expires_at"),
        ({"member": "nobody"}, "member"),
    ]
    for wish, param in wishes:
        answer = await admin.post("/api-keys", json=wish)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), wish
    assert len((await admin.get("/api-keys")).json()["data"]) == 1


async def test_an_expired_key_stops_and_makes_room(
    admin: httpx.AsyncClient, client_for: ClientFor, settings: Settings, wall: WallClock
) -> None:
    wish = {"role": "developer", "expires_at": wall.later(hours=1)}
    issued = [(await admin.post("/api-keys", json=wish)).json() for _ in range(LIMIT)]
    assert (await admin.post("/api-keys", json={"role": "developer"})).status_code == 409
    holder = client_for(issued[0]["key"])
    assert (await holder.get("/endpoints")).status_code == 200
    told = saved_table(settings).grants[hash_key(issued[0]["key"])].expires_at
    assert told is not None
    assert abs(told - wall() - timedelta(hours=1)) < timedelta(minutes=1)

    wall.jump(hours=1)
    assert (await holder.get("/endpoints")).status_code == 401
    assert (await admin.post("/api-keys", json={"role": "developer"})).status_code == 201
    assert (await admin.get(f"/api-keys/{issued[0]['id']}")).json()["expires_at"] == issued[0]["expires_at"]


def test_ended_keys_do_not_pile_up(platform: Platform, wall: WallClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_service, "ENDED_KEPT", 2)
    ids = []
    for _ in range(4):
        key, _ = platform.keys.issue(
            DEFAULT_WORKSPACE, "inference", "", expires_at=wall() + timedelta(minutes=len(ids) + 1)
        )
        ids.append(key.id)
    wall.jump(minutes=10)
    platform.keys.issue(DEFAULT_WORKSPACE, "inference", "")
    left = [key.id for key in platform.keys.find(DEFAULT_WORKSPACE)]
    assert [key_id in left for key_id in ids] == [False, False, True, True]


async def test_a_key_for_some_endpoints_sees_these_and_changes_no_others(
    admin: httpx.AsyncClient, client_for: ClientFor, platform: Platform, settings: Settings
) -> None:
    platform.declarations.declare([spec("mine"), spec("other")])
    mine, other = (by_name(platform)[name].id for name in ("mine", "other"))
    wish = {"role": "developer", "endpoints": ["mine", mine]}  # the same one, by name and by ID
    issued = (await admin.post("/api-keys", json=wish)).json()
    assert issued["endpoints"] == [mine]
    assert saved_table(settings).grants[hash_key(issued["key"])].endpoints == (mine,)

    holder = client_for(issued["key"])
    assert (await holder.get(f"/endpoints/{mine}")).status_code == 200
    assert (await holder.get(f"/endpoints/{mine}/events")).status_code == 200
    unknown = (await holder.get("/endpoints/ep-9")).text
    for answer in (
        await holder.get(f"/endpoints/{other}"),
        await holder.get(f"/endpoints/{other}/events"),
        await holder.get(f"/endpoints/{other}/snippet"),
        await holder.delete(f"/endpoints/{other}?confirm=DELETE"),
    ):
        assert (answer.status_code, answer.text) == (404, unknown.replace("ep-9", other))
    assert [found["id"] for found in (await holder.get("/endpoints")).json()["data"]] == [mine]
    refused = await holder.post("/endpoints", json={"name": "new", "model": "m-1"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")


async def test_an_admin_key_for_some_endpoints_manages_nothing_else(
    admin: httpx.AsyncClient, client_for: ClientFor, platform: Platform
) -> None:
    platform.declarations.declare([spec("mine")])
    issued = (await admin.post("/api-keys", json={"role": "admin", "endpoints": ["mine"]})).json()
    holder = client_for(issued["key"])
    assert (await holder.get(f"/endpoints/{issued['endpoints'][0]}")).status_code == 200
    for path in ("/api-keys", "/members", "/workspaces", "/audit"):
        assert (await holder.get(path)).status_code == 403
    assert (await holder.post("/api-keys", json={"role": "admin"})).status_code == 403


async def test_an_endpoint_that_is_going_is_not_for_a_new_key(admin: httpx.AsyncClient, platform: Platform) -> None:
    created = (await admin.post("/endpoints", json={"name": "going", "model": "m-1"})).json()
    assert (await admin.delete(f"/endpoints/{created['id']}?confirm=DELETE")).status_code == 202
    for one in ("going", created["id"]):
        answer = await admin.post("/api-keys", json={"endpoints": [one]})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "endpoints[0]")


async def test_the_last_use_is_known_to_the_minute(
    admin: httpx.AsyncClient, client_for: ClientFor, platform: Platform, wall: WallClock
) -> None:
    issued = (await admin.post("/api-keys", json={"role": "developer"})).json()

    async def last_used() -> datetime | None:
        shown = (await admin.get(f"/api-keys/{issued['id']}")).json()["last_used_at"]
        return datetime.fromisoformat(shown) if shown else None

    assert await last_used() is None
    await client_for(issued["key"]).get("/endpoints")
    first = await last_used()
    assert first is not None
    wall.jump(seconds=50)
    await client_for(issued["key"]).get("/endpoints")
    assert await last_used() == first
    wall.jump(seconds=20)
    await client_for(issued["key"]).get("/endpoints")
    second = await last_used()
    assert second is not None
    assert second > first

    wall.jump(hours=1)
    seen_by_a_router = wall() - timedelta(seconds=3)
    platform.keys.used({hash_key(issued["key"]): seen_by_a_router, "of no key": seen_by_a_router})
    assert await last_used() == seen_by_a_router
    wall.jump(hours=1)
    platform.keys.used({hash_key(issued["key"]): wall() + timedelta(hours=5)})  # a router's clock may be wrong
    third = await last_used()
    assert third is not None
    assert third <= wall()
    platform.keys.used({hash_key(issued["key"]): seen_by_a_router})  # an old report
    assert await last_used() == third


def test_a_report_from_before_a_restart_is_too_late(open_platform: Callable[..., Platform], wall: WallClock) -> None:
    keys = open_platform(now=wall).keys
    issued, key = keys.issue(DEFAULT_WORKSPACE, "inference", "")
    keys.used({hash_key(key): wall()})
    before = keys.get(DEFAULT_WORKSPACE, issued.id).last_used_at
    keys = open_platform(now=wall).keys
    keys.used({hash_key(key): wall() - timedelta(hours=1)})
    assert before is not None
    assert keys.get(DEFAULT_WORKSPACE, issued.id).last_used_at == before


async def test_a_late_report_brings_no_revoked_key_back(
    admin: httpx.AsyncClient, client_for: ClientFor, platform: Platform
) -> None:
    issued = (await admin.post("/api-keys", json={"role": "developer"})).json()
    await admin.delete(f"/api-keys/{issued['id']}?confirm=DELETE")
    platform.keys.used({hash_key(issued["key"]): datetime.now(UTC)})
    assert platform.registry.get(ApiKey, issued["id"]) is None
    assert (await client_for(issued["key"]).get("/endpoints")).status_code == 401


@ONE_DATABASE
async def test_a_malformed_key_is_refused_before_any_query(
    client_for: ClientFor, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    find = platform.registry.find

    def watched(kind: Any, **query: Any) -> Any:
        asked.extend([query["hash"]] if "hash" in query else [])
        return find(kind, **query)

    monkeypatch.setattr(platform.registry, "find", watched)
    for key in ("mu-short", "sk-" + "a" * 43, "mu-" + "a" * 44, "mu-' OR 1=1 --"):
        assert (await client_for(key).get("/endpoints")).status_code == 401
    assert asked == []
    wanted = issue_key()
    assert (await client_for(wanted).get("/endpoints")).status_code == 401
    assert asked == [hash_key(wanted)]


async def test_the_first_key_is_not_deleted(admin: httpx.AsyncClient) -> None:
    assert (await admin.delete(f"/api-keys/{ADMIN_KEY_ID}?confirm=DELETE")).status_code == 409
    assert (await admin.get("/endpoints")).status_code == 200


@ONE_DATABASE
async def test_keys_lie_in_no_file_but_the_admins_own(
    admin: httpx.AsyncClient, platform: Platform, settings: Settings
) -> None:
    key_file = settings.home / "admin.key"
    assert key_file.stat().st_mode & 0o777 == 0o600
    issued = (await admin.post("/api-keys", json={})).json()["key"]
    with closing(sqlite3.connect(settings.home / "registry.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database_bytes = b"".join(path.read_bytes() for path in settings.home.glob("registry.db*"))
    for key in (key_file.read_text().strip(), issued):
        assert hash_key(key).encode() in database_bytes
        for path in settings.home.rglob("*"):
            if path.is_file() and path != key_file:
                assert key[9:].encode() not in path.read_bytes(), path


def test_the_admin_key_survives_a_restart(open_platform: Callable[[], Platform], settings: Settings) -> None:
    before = open_platform().registry.get(ApiKey, ADMIN_KEY_ID)
    key = (settings.home / "admin.key").read_text()
    assert open_platform().registry.get(ApiKey, ADMIN_KEY_ID) == before
    assert (settings.home / "admin.key").read_text() == key
    assert hash_key(key.strip()) in saved_table(settings).grants


@ONE_DATABASE
def test_a_given_admin_key_is_taken_and_a_wrong_one_refused(settings: Settings) -> None:
    key = issue_key()
    given = settings.model_copy(update={"admin_key": key})
    platform = Platform(given, FakeCluster(), ControlPlaneArgs(), routers_timeout_s=0)
    platform.registry.migrate()
    with pytest.raises(ValueError, match="MODELUNIT_ADMIN_KEY") as caught:
        platform.keys.ensure_admin(given.model_copy(update={"admin_key": "mu-secret"}))
    assert "secret" not in json.dumps(str(caught.value))
    platform.workspaces.ensure_default()
    platform.keys.ensure_admin(given)
    assert platform.keys.caller(f"Bearer {key}").id == ADMIN_KEY_ID
    platform.registry.close()


async def test_a_stranger_learns_nothing_but_the_description(platform: Platform) -> None:
    transport = httpx.ASGITransport(asgi(platform))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as stranger:
        assert (await stranger.get("/openapi.json")).status_code == 200
        for path in ("/", "/v1", "/v1/endpoints", "/v1/nothing", "/openapi.json/", "/docs"):
            for method in ("GET", "POST", "DELETE", "OPTIONS"):
                assert (await stranger.request(method, path)).status_code == 401, (method, path)


LIMITS = {"requests_per_minute": 60, "tokens_per_minute": 10_000, "concurrency": 4}
NO_LIMITS = dict.fromkeys(LIMITS)


async def test_limits_reach_the_routers_and_so_does_each_change_of_them(
    admin: httpx.AsyncClient, settings: Settings
) -> None:
    issued = (await admin.post("/api-keys", json={"limits": LIMITS})).json()
    path = f"/api-keys/{issued['id']}"

    def told() -> dict[str, Any]:
        return saved_table(settings).grants[hash_key(issued["key"])].limits.model_dump()

    assert issued["limits"] == told() == LIMITS
    for change, limits in (
        ({"limits": {"concurrency": 9}}, LIMITS | {"concurrency": 9}),
        ({"limits": {"tokens_per_minute": None}}, LIMITS | {"concurrency": 9, "tokens_per_minute": None}),
        ({}, LIMITS | {"concurrency": 9, "tokens_per_minute": None}),
        ({"limits": None}, NO_LIMITS),
        ({"limits": {}}, NO_LIMITS),
    ):
        changed = await admin.patch(path, json=change)
        assert (changed.status_code, changed.json()["limits"], told()) == (200, limits, limits)
        assert (await admin.get(path)).json() == changed.json()
    events = (await admin.get(f"/events?subject={issued['id']}")).json()["data"]
    assert [event["kind"] for event in events] == ["issued", "changed", "changed", "changed"]
    assert events[1]["message"].endswith("60 requests a minute, 10,000 tokens a minute, 9 requests at once")
    assert events[3]["message"].endswith("no limits")


@ONE_DATABASE
async def test_wrong_limits_are_refused_by_field(admin: httpx.AsyncClient) -> None:
    issued = (await admin.post("/api-keys", json={"limits": LIMITS})).json()
    for limits, param in (
        ({"requests_per_minute": 0}, "limits.requests_per_minute"),
        ({"requests_per_minute": 1.5}, "limits.requests_per_minute"),
        ({"tokens_per_minute": "9"}, "limits.tokens_per_minute"),
        ({"concurrency": 1_000_000}, "limits.concurrency"),
        ({"qps": 1}, "limits.qps"),
        (3, "limits"),
    ):
        for answer in (
            await admin.post("/api-keys", json={"limits": limits}),
            await admin.patch(f"/api-keys/{issued['id']}", json={"limits": limits}),
        ):
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), limits
    assert (await admin.patch(f"/api-keys/{issued['id']}", json={"role": "admin"})).status_code == 400
    assert (await admin.patch("/api-keys/key-none", json={"limits": LIMITS})).status_code == 404


@ONE_DATABASE
async def test_of_two_changes_of_one_version_the_second_is_refused(
    admin: httpx.AsyncClient, client_for: ClientFor
) -> None:
    issued = (await admin.post("/api-keys", json={"role": "developer"})).json()
    path = f"/api-keys/{issued['id']}"
    await client_for(issued["key"]).get("/endpoints")  # using it changes no wish
    read = await admin.get(path)
    assert read.headers["etag"] == f'"{issued["etag"]}"'
    headers = {"if-match": read.headers["etag"]}
    first = await admin.patch(path, json={"limits": {"concurrency": 1}}, headers=headers)
    late = await admin.patch(path, json={"limits": {"concurrency": 2}}, headers=headers)
    assert (first.status_code, late.status_code, late.json()["error"]["code"]) == (200, 409, "etag_mismatch")
    assert (await admin.get(path)).json()["limits"]["concurrency"] == 1


async def test_who_has_limits_makes_nobody_without(
    admin: httpx.AsyncClient, client_for: ClientFor, platform: Platform
) -> None:
    """Nor somebody with the same limits: two keys would take twice as much."""
    wish = {"role": "admin", "limits": {"requests_per_minute": 60}}
    issued = (await admin.post("/api-keys", json=wish)).json()
    other = (await admin.post("/api-keys", json={})).json()
    workspace = (await admin.post("/workspaces", json={"name": "theirs"})).json()
    holder = client_for(issued["key"])
    for answer in (
        await holder.post("/api-keys", json={"limits": {"requests_per_minute": 1}}),
        await holder.patch(f"/api-keys/{issued['id']}", json={"limits": None}),
        await holder.patch(f"/api-keys/{other['id']}", json={"limits": {"concurrency": 1}}),
        await holder.post("/workspaces", json={"name": "mine"}),
        await holder.post(f"/workspaces/{workspace['id']}/api-keys", json={}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
        assert "limits of its own" in answer.json()["error"]["message"]
    assert len((await holder.get("/api-keys")).json()["data"]) == 3
    assert len((await admin.get("/workspaces")).json()["data"]) == 2
    await admin.patch(f"/api-keys/{issued['id']}", json={"limits": None})
    assert (await holder.post("/api-keys", json={})).status_code == 201


async def test_the_first_key_has_no_limits(admin: httpx.AsyncClient) -> None:
    """Else nobody might be left who can change them."""
    answer = await admin.patch(f"/api-keys/{ADMIN_KEY_ID}", json={"limits": {"concurrency": 1}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    assert (await admin.patch(f"/api-keys/{ADMIN_KEY_ID}", json={"limits": None})).status_code == 200


async def test_a_change_of_limits_leaves_the_rest_of_a_members_key(
    admin: httpx.AsyncClient, platform: Platform, wall: WallClock
) -> None:
    await admin.post("/members", json={"name": "ann", "role": "developer"})
    issued = (await admin.post("/api-keys", json={"role": "developer", "member": "ann"})).json()
    await admin.patch("/members/ann", json={"role": "inference", "expires_at": wall.later(days=1)})
    changed = (await admin.patch(f"/api-keys/{issued['id']}", json={"limits": {"concurrency": 1}})).json()
    assert (changed["role"], changed["limits"]["concurrency"]) == ("inference", 1)
    await admin.patch("/members/ann", json={"role": "developer", "expires_at": None})
    again = (await admin.get(f"/api-keys/{issued['id']}")).json()
    assert (again["role"], again["expires_at"]) == ("developer", None)
