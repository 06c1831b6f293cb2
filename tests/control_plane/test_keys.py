import json
import sqlite3
from collections.abc import Callable
from contextlib import closing

import httpx
import pytest

from app.control_plane.platform import Platform
from app.control_plane.services.keys import ADMIN_KEY_ID, MAX_LIVE_KEYS
from app.core.keys import hash_key, issue_key, well_formed
from app.core.routing import RoutingTable
from app.settings import Settings
from app.store.layout import SNAPSHOT
from app.store.objects import open_store
from tests.control_plane.platforms import FakeCluster

ClientFor = Callable[[str | None], httpx.AsyncClient]


def table(settings: Settings) -> RoutingTable:
    return RoutingTable.model_validate_json(open_store(settings).read(SNAPSHOT))


async def test_a_key_is_shown_once_and_works_at_once(
    admin: httpx.AsyncClient, client_for: ClientFor, settings: Settings
) -> None:
    answer = await admin.post("/api-keys", json={"role": "developer", "description": "mine"})
    issued = answer.json()
    assert answer.status_code == 201
    assert well_formed(issued["key"])
    assert (await client_for(issued["key"]).get("/endpoints")).status_code == 200
    assert hash_key(issued["key"]) in table(settings).grants

    listed = await admin.get("/api-keys")
    assert [key["id"] for key in listed.json()["data"]] == [ADMIN_KEY_ID, issued["id"]]
    assert issued["key"] not in listed.text
    for shown in (answer.text, listed.text):
        assert hash_key(issued["key"]) not in shown
        assert "hash" not in shown


async def test_a_revoked_key_stops_and_leaves_the_routing_table(
    admin: httpx.AsyncClient, client_for: ClientFor, settings: Settings
) -> None:
    issued = (await admin.post("/api-keys", json={"role": "developer"})).json()
    number = table(settings).number
    assert (await admin.delete(f"/api-keys/{issued['id']}")).status_code == 400  # must be meant
    assert (await admin.delete(f"/api-keys/{issued['id']}?confirm=DELETE")).status_code == 204
    assert hash_key(issued["key"]) not in table(settings).grants
    assert table(settings).number > number
    assert (await client_for(issued["key"]).get("/endpoints")).status_code == 401
    assert (await admin.delete(f"/api-keys/{issued['id']}?confirm=DELETE")).status_code == 404


@pytest.mark.parametrize("role", ["admin", "developer", "inference"])
async def test_there_are_at_most_five_keys_of_a_role(admin: httpx.AsyncClient, role: str) -> None:
    issued = [await admin.post("/api-keys", json={"role": role}) for _ in range(MAX_LIVE_KEYS + 1)]
    assert [answer.status_code for answer in issued] == [201] * MAX_LIVE_KEYS + [409]
    await admin.delete(f"/api-keys/{issued[0].json()['id']}?confirm=DELETE")
    assert (await admin.post("/api-keys", json={"role": role})).status_code == 201


async def test_only_admins_see_and_make_keys(admin: httpx.AsyncClient, client_for: ClientFor) -> None:
    developer = client_for((await admin.post("/api-keys", json={"role": "developer"})).json()["key"])
    assert (await developer.get("/api-keys")).status_code == 403
    assert (await developer.post("/api-keys", json={})).status_code == 403
    assert (await developer.delete(f"/api-keys/{ADMIN_KEY_ID}?confirm=DELETE")).status_code == 403


async def test_wrong_wishes_are_refused_by_field(admin: httpx.AsyncClient) -> None:
    for wish, param in (({"role": "root"}, "role"), ({"description": "d" * 101}, "description"), ({"x": 1}, "x")):
        answer = await admin.post("/api-keys", json=wish)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_the_first_key_is_not_deleted(admin: httpx.AsyncClient) -> None:
    assert (await admin.delete(f"/api-keys/{ADMIN_KEY_ID}?confirm=DELETE")).status_code == 409
    assert (await admin.get("/endpoints")).status_code == 200


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
    open_platform()
    key = (settings.home / "admin.key").read_text()
    open_platform()
    assert (settings.home / "admin.key").read_text() == key
    assert hash_key(key.strip()) in table(settings).grants


def test_a_given_admin_key_is_taken_and_a_wrong_one_refused(settings: Settings) -> None:
    key = issue_key()
    given = settings.model_copy(update={"admin_key": key})
    platform = Platform(given, FakeCluster(), {}, routers_timeout_s=0)
    platform.registry.migrate()
    with pytest.raises(ValueError, match="MODELUNIT_ADMIN_KEY") as caught:
        platform.keys.ensure_admin(given.model_copy(update={"admin_key": "mu-secret"}))
    assert "secret" not in json.dumps(str(caught.value))
    platform.registry.close()
