"""/v1/members, and the keys issued for them."""

from typing import Any

import httpx
import pytest

from app.control_plane.platform import Platform
from app.control_plane.services import members as members_service
from app.core.keys import hash_key
from app.core.routing import Grant
from tests.control_plane.clocks import WallClock
from tests.control_plane.conftest import ClientFor
from tests.control_plane.platforms import ONE_DATABASE, table_of

ANN = {"name": "ann@example.com", "role": "developer"}


def grant(platform: Platform, key: str) -> Grant | None:
    """What the routers know of a key."""
    return table_of(platform).grants.get(hash_key(key))


async def add(admin: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await admin.post("/members", json=ANN | fields)
    assert answer.status_code == 201
    return answer.json()


async def key_for(admin: httpx.AsyncClient, member: str, **fields: Any) -> Any:
    answer = await admin.post("/api-keys", json={"role": "developer", "member": member} | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_member_is_added_changed_and_taken_away(admin: httpx.AsyncClient, wall: WallClock) -> None:
    ann = await add(admin, expires_at=wall.later(days=30))
    assert (ann["object"], ann["name"], ann["role"]) == ("member", "ann@example.com", "developer")
    for named in (ann["id"], "ann@example.com"):
        assert (await admin.get(f"/members/{named}")).json() == ann
    assert (await admin.get("/members")).json()["data"] == [ann]

    changed = (await admin.patch(f"/members/{ann['id']}", json={"role": "admin"})).json()
    assert changed == ann | {"role": "admin", "etag": changed["etag"]}
    for_ever = (await admin.patch(f"/members/{ann['id']}", json={"expires_at": None})).json()
    assert for_ever == changed | {"expires_at": None, "etag": for_ever["etag"]}
    assert (await admin.patch(f"/members/{ann['id']}", json={})).json() == for_ever

    assert (await admin.delete(f"/members/{ann['id']}")).status_code == 400  # must be meant
    assert (await admin.delete(f"/members/{ann['id']}?confirm=DELETE")).status_code == 204
    for answer in (
        await admin.get(f"/members/{ann['id']}"),
        await admin.patch(f"/members/{ann['id']}", json={}),
        await admin.delete(f"/members/{ann['id']}?confirm=DELETE"),
    ):
        assert answer.status_code == 404


@ONE_DATABASE
async def test_wrong_wishes_are_refused_by_field(admin: httpx.AsyncClient) -> None:
    wishes: list[tuple[dict[str, Any], str]] = [
        ({"name": ""}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "n" * 129}, "name"),
        ({"name": None}, "name"),
        ({"role": "owner"}, "role"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"x": 1}, "x"),
    ]
    for wish, param in wishes:
        answer = await admin.post("/members", json=ANN | wish)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), wish
    assert (await admin.get("/members")).json()["data"] == []


async def test_a_change_to_the_past_is_refused(admin: httpx.AsyncClient) -> None:
    ann = await add(admin)
    answer = await admin.patch(f"/members/{ann['id']}", json={"expires_at": "2020-01-01T00:00:00Z"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "expires_at")
    assert (await admin.get(f"/members/{ann['id']}")).json() == ann


async def test_names_are_taken_once_and_members_are_bounded(
    admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert members_service.MAX_MEMBERS == 50
    monkeypatch.setattr(members_service, "MAX_MEMBERS", 2)
    await add(admin)
    taken = await admin.post("/members", json=ANN)
    assert (taken.status_code, taken.json()["error"]["param"]) == (409, "name")
    await add(admin, name="bob")
    assert (await admin.post("/members", json=ANN | {"name": "cleo"})).status_code == 409


async def test_only_admins_manage_members(admin: httpx.AsyncClient, client_for: ClientFor) -> None:
    ann = await add(admin)
    developer = client_for((await key_for(admin, ann["id"]))["key"])
    assert (await developer.get("/members")).status_code == 403
    assert (await developer.patch(f"/members/{ann['id']}", json={"role": "admin"})).status_code == 403


async def test_a_members_key_can_do_no_more_than_they(
    admin: httpx.AsyncClient, client_for: ClientFor, platform: Platform, wall: WallClock
) -> None:
    await add(admin, expires_at=wall.later(days=1))
    refused = await admin.post("/api-keys", json={"role": "admin", "member": "ann@example.com"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "role")

    issued = await key_for(admin, "ann@example.com", expires_at=wall.later(days=9))
    holder = client_for(issued["key"])
    assert issued["expires_at"] < wall.later(days=2)  # theirs, not its own
    assert (await holder.get("/endpoints")).status_code == 200

    await admin.patch(f"/members/{issued['member_id']}", json={"role": "inference"})
    told = grant(platform, issued["key"])
    assert told is not None
    assert told.role == "inference"
    assert (await holder.get("/endpoints")).status_code == 403
    shown = (await admin.get(f"/api-keys/{issued['id']}")).json()
    assert (shown["role"], shown["expires_at"]) == ("inference", issued["expires_at"])


async def test_a_members_key_ends_with_their_time_and_comes_back_with_more(
    admin: httpx.AsyncClient, client_for: ClientFor, platform: Platform, wall: WallClock
) -> None:
    ann = await add(admin, expires_at=wall.later(days=1))
    issued = await key_for(admin, ann["id"])
    wall.jump(days=1)
    assert (await client_for(issued["key"]).get("/endpoints")).status_code == 401
    told = grant(platform, issued["key"])
    assert told is not None
    assert told.expires_at is not None
    assert told.expires_at <= wall()  # so the routers refuse it by themselves
    late = await admin.post("/api-keys", json={"role": "developer", "member": ann["id"]})
    assert (late.status_code, late.json()["error"]["param"]) == (409, "member")

    await admin.patch(f"/members/{ann['id']}", json={"expires_at": wall.later(days=1)})
    assert (await client_for(issued["key"]).get("/endpoints")).status_code == 200


@pytest.mark.parametrize("path", ["/members/ann@example.com", "/members"])
async def test_who_is_taken_away_loses_their_keys_at_once(
    admin: httpx.AsyncClient, client_for: ClientFor, platform: Platform, path: str
) -> None:
    ann = await add(admin)
    theirs = await key_for(admin, ann["id"])
    nobodys = (await admin.post("/api-keys", json={"role": "developer"})).json()
    assert (await admin.delete(path)).status_code == 400
    assert (await admin.delete(f"{path}?confirm=DELETE")).status_code == 204
    assert (await admin.get("/members")).json()["data"] == []
    assert grant(platform, theirs["key"]) is None
    assert (await client_for(theirs["key"]).get("/endpoints")).status_code == 401
    assert (await client_for(nobodys["key"]).get("/endpoints")).status_code == 200
    told = (await admin.get(f"/events?subject={theirs['id']}")).json()["data"]
    assert [event["kind"] for event in told] == ["issued", "revoked"]


async def admin_member(admin: httpx.AsyncClient, client_for: ClientFor, **fields: Any) -> tuple[str, httpx.AsyncClient]:
    """An admin's ID, and calls with a key of theirs."""
    ann = await add(admin, role="admin", **fields)
    return ann["id"], client_for((await key_for(admin, ann["id"], role="admin"))["key"])


async def test_an_admin_for_a_time_gives_nothing_beyond_it(
    admin: httpx.AsyncClient, client_for: ClientFor, wall: WallClock
) -> None:
    ends = wall.later(days=1)
    issued = (await admin.post("/api-keys", json={"role": "admin", "expires_at": ends})).json()
    holder = client_for(issued["key"])
    for wish in ({}, {"expires_at": wall.later(days=9)}, {"role": "admin"}):
        made = await holder.post("/api-keys", json=wish)
        assert (made.status_code, made.json()["expires_at"]) == (201, issued["expires_at"]), wish
    sooner = await holder.post("/api-keys", json={"expires_at": wall.later(hours=1)})
    assert sooner.json()["expires_at"] < issued["expires_at"]

    bob = (await holder.post("/members", json=ANN | {"name": "bob"})).json()
    assert bob["expires_at"] == issued["expires_at"]
    for later in (None, wall.later(days=9)):
        assert (await holder.patch("/members/bob", json={"expires_at": later})).json() == bob
    assert (await key_for(holder, "bob"))["expires_at"] == issued["expires_at"]

    workspace = (await holder.post("/workspaces", json={"name": "theirs"})).json()
    rescue = (await holder.post(f"/workspaces/{workspace['id']}/api-keys", json={})).json()
    assert rescue["expires_at"] == issued["expires_at"]
    wall.jump(days=1)
    for key in (workspace["key"], rescue["key"], made.json()["key"]):
        assert (await client_for(key).get("/endpoints")).status_code == 401


@ONE_DATABASE
async def test_an_admin_member_does_not_outlive_their_grant(
    admin: httpx.AsyncClient, client_for: ClientFor, wall: WallClock
) -> None:
    ann, holder = await admin_member(admin, client_for, expires_at=wall.later(days=1))
    await add(admin, name="bob")
    for wish in ({"expires_at": None}, {"role": "developer"}, {}):
        for named in (ann, "ann@example.com"):
            refused = await holder.patch(f"/members/{named}", json=wish)
            assert refused.status_code == 403
            assert "somebody else must change" in refused.json()["error"]["message"]
    refused = await holder.post("/api-keys", json={"member": "bob"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (403, "member")
    assert "the same member only" in refused.json()["error"]["message"]
    for wish in ({}, {"member": ann}):
        own = (await holder.post("/api-keys", json={"role": "admin", **wish})).json()
        assert own["member_id"] == ann
    await admin.delete(f"/members/{ann}?confirm=DELETE")
    assert (await client_for(own["key"]).get("/endpoints")).status_code == 401


@ONE_DATABASE
async def test_of_two_changes_of_one_version_the_second_is_refused(admin: httpx.AsyncClient) -> None:
    ann = await add(admin)
    path = f"/members/{ann['id']}"
    read = await admin.get(path)
    headers = {"if-match": read.headers["etag"]}
    assert read.json()["etag"] == ann["etag"]
    changed = await admin.patch(path, json={"role": "admin"}, headers=headers)
    late = await admin.patch(path, json={"role": "inference"}, headers=headers)
    assert (changed.status_code, late.status_code, late.json()["error"]["code"]) == (200, 409, "etag_mismatch")
    assert (await admin.get(path)).json()["role"] == "admin"
    newest = {"if-match": changed.json()["etag"]}
    assert (await admin.patch(path, json={"role": "inference"}, headers=newest)).status_code == 200
