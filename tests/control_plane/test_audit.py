"""/v1/audit: every request that wanted to change something."""

import asyncio
import threading
from typing import Any

import httpx
import pytest

from app.control_plane.api.audit import CALLER_LEFT
from app.control_plane.platform import Platform
from app.control_plane.services.keys import ADMIN_KEY_ID
from app.core.errors import Conflict, Unavailable
from app.core.records import AuditEntry, Event, Member, Record
from app.web import ROUTER_REQUEST_ID
from tests.control_plane.conftest import ClientFor
from tests.control_plane.platforms import ONE_DATABASE, admin_key, client_of, until

JSON = {"content-type": "application/json"}


def routed(number: int) -> dict[str, str]:
    """The header by which a router tells the ID of a request."""
    return {ROUTER_REQUEST_ID: f"req-{number:024x}"}


async def audit(caller: httpx.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    answer = await caller.get(f"/audit?{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def test_each_change_is_written_down(admin: httpx.AsyncClient) -> None:
    issued = await admin.post("/api-keys", json={}, headers=routed(1))
    key = issued.json()["id"]
    await admin.delete(f"/api-keys/{key}?confirm=DELETE", headers=routed(2))
    made, gone = await audit(admin)
    common = {"object": "audit_entry", "workspace": "default", "actor": ADMIN_KEY_ID, "subject": key}
    assert made.items() >= (common | {"action": "POST /platform/v1/api-keys", "status": 201}).items()
    assert gone.items() >= (common | {"action": "DELETE /platform/v1/api-keys/{key_id}", "status": 204}).items()
    assert [made["request_id"], gone["request_id"]] == [*routed(1).values(), *routed(2).values()]


async def test_what_was_refused_is_written_down_too(admin: httpx.AsyncClient) -> None:
    endpoint = "/platform/v1/endpoints/{endpoint_id}"
    for method, path, content, status, action, subject in (
        ("POST", "/api-keys", b'{"role": "root"}', 400, "POST /platform/v1/api-keys", ""),
        ("POST", "/api-keys", b"{", 400, "POST /platform/v1/api-keys", ""),
        ("POST", "/endpoints", b'{"name": "e", "model": "m-9"}', 404, "POST /platform/v1/endpoints", ""),
        ("DELETE", "/endpoints/ep-9", b"", 400, f"DELETE {endpoint}", "ep-9"),
        ("DELETE", "/endpoints/ep-9?confirm=DELETE", b"", 404, f"DELETE {endpoint}", "ep-9"),
        ("PUT", "/endpoints/ep-9", b"", 405, f"PUT {endpoint}", "ep-9"),
        ("POST", "/nothing", b"", 404, "POST /platform (no such path)", ""),
    ):
        answer = await admin.request(method, path, content=content, headers=JSON)
        (entry,) = await audit(admin, f"request_id={answer.headers['x-request-id']}")
        assert answer.status_code == entry["status"] == status
        assert (entry["action"], entry["subject"]) == (action, subject)


async def test_a_request_that_is_sent_twice_is_about_one_record(admin: httpx.AsyncClient) -> None:
    wish = {"name": "demo", "model": "m-1"}
    answers = [await admin.post("/endpoints", json=wish, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert [entry["subject"] for entry in await audit(admin)] == [answer.json()["id"] for answer in answers]
    assert answers[0].json()["id"] == answers[1].json()["id"]


async def test_reading_and_strangers_leave_no_entry(admin: httpx.AsyncClient, client_for: ClientFor) -> None:
    await admin.get("/endpoints")
    for key in (None, "mu-wrong"):
        assert (await client_for(key).post("/api-keys", json={})).status_code == 401
    assert await audit(admin) == []


async def test_only_admins_read_it_and_its_own_refusals_are_in_it(
    admin: httpx.AsyncClient, client_for: ClientFor
) -> None:
    developer = (await admin.post("/api-keys", json={"role": "developer"})).json()
    assert (await client_for(developer["key"]).get("/audit")).status_code == 403
    assert (await client_for(developer["key"]).post("/api-keys", json={})).status_code == 403
    (entry,) = await audit(admin, f"actor={developer['id']}")
    assert entry["status"] == 403


async def test_it_is_filtered_and_paged(admin: httpx.AsyncClient) -> None:
    answers = [await admin.post("/api-keys", json={}, headers=routed(i)) for i in range(3)]
    await admin.post("/members", json={"name": "ann", "role": "admin"})
    keys = [answer.json()["id"] for answer in answers]
    assert [e["subject"] for e in await audit(admin, "action=POST /platform/v1/api-keys")] == keys
    assert [e["request_id"] for e in await audit(admin, f"subject={keys[1]}")] == list(routed(1).values())
    assert [e["subject"] for e in await audit(admin, f"request_id={routed(2)[ROUTER_REQUEST_ID]}")] == [keys[2]]
    assert len(await audit(admin, f"actor={ADMIN_KEY_ID}")) == 4
    since = (await audit(admin))[1]["created_at"]
    assert [e["subject"] for e in await audit(admin, f"since={since}")][:2] == keys[1:]
    assert [e["subject"] for e in await audit(admin, f"until={since}")] == keys[:1]
    first = (await admin.get("/audit?order=desc&page_size=3")).json()
    second = (await admin.get(f"/audit?order=desc&page_size=3&page_token={first['next_page_token']}")).json()
    assert [e["subject"] for e in [*first["data"], *second["data"]]][1:] == keys[::-1]
    assert second["next_page_token"] is None


async def test_another_workspaces_audit_is_for_the_platforms_admins(
    admin: httpx.AsyncClient, client_for: ClientFor
) -> None:
    created = (await admin.post("/workspaces", json={"name": "theirs"})).json()
    theirs = client_for(created["key"])
    await theirs.post("/api-keys", json={})
    (entry,) = await audit(theirs)
    assert entry["actor"] == created["key_id"]
    assert await audit(theirs, f"workspace={created['id']}") == [entry]
    assert (await theirs.get("/audit?workspace=default")).status_code == 403
    assert await audit(admin, f"workspace={created['id']}") == [entry]
    assert [e["subject"] for e in await audit(admin)] == [created["id"]]


async def test_an_entry_is_there_before_its_answer(
    platform: Platform, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it cannot be written, the caller is not told that all is well."""

    def full(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(platform.audit, "write", full)
    answer = await admin.post("/members", json={"name": "ann", "role": "admin"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "disk" not in answer.text


@ONE_DATABASE
async def test_an_entry_that_cannot_be_written_is_tried_once_more(
    platform: Platform, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What it tells of has happened already: where it is lost, the log has it."""
    await admin.get("/members")  # the use of the key is written down
    put, failures = platform.registry.put, [1]

    def fails(*records: Record) -> None:
        if any(isinstance(record, AuditEntry) for record in records) and failures[0]:
            failures[0] -= 1
            raise Unavailable("The registry cannot be used at the moment.")
        put(*records)

    monkeypatch.setattr(platform.registry, "put", fails)
    assert (await admin.post("/members", json={"name": "ann", "role": "admin"})).status_code == 201
    (entry,) = await audit(admin)
    assert entry["status"] == 201
    failures[0] = 2
    assert (await admin.delete("/members/ann?confirm=DELETE")).status_code == 503
    assert await audit(admin) == [entry]
    (told,) = [record.getMessage() for record in caplog.records if "audit" in record.getMessage()]
    assert f"{ADMIN_KEY_ID} DELETE /platform/v1/members/{{member_id}} 204" in told


async def test_what_failed_unexpectedly_is_written_down(
    platform: Platform, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(platform.members, "add", broken)
    assert (await admin.post("/members", json={"name": "ann", "role": "admin"})).status_code == 500
    (entry,) = await audit(admin)
    assert entry["status"] == 500


async def leave_early(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller closes the connection while a member is being added, which comes to its end later."""
    loop = asyncio.get_running_loop()
    reached, let_go = asyncio.Event(), asyncio.Event()

    def slow(*_: Any) -> Member:
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(let_go.wait(), loop).result(10)
        raise Conflict("too late to matter")

    monkeypatch.setattr(platform.members, "add", slow)
    async with client_of(platform, admin_key(platform.settings)) as caller:
        request = asyncio.create_task(caller.post("/members", json={"name": "ann", "role": "admin"}))
        async with asyncio.timeout(10):
            await reached.wait()
        request.cancel()
        let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await request


@ONE_DATABASE
async def test_a_caller_who_leaves_is_written_down(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever closes the connection at once changes things no less."""
    await leave_early(platform, monkeypatch)
    (entry,) = await asyncio.to_thread(until, lambda: platform.registry.find(AuditEntry))
    assert (entry.status, entry.action) == (CALLER_LEFT, "POST /platform/v1/members")


@ONE_DATABASE
async def test_others_do_not_wait_for_the_entry_of_a_caller_who_left(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry may be slow, and the loop is everybody's."""
    written_in = set[int]()
    monkeypatch.setattr(platform.audit, "write", lambda *_: written_in.add(threading.get_ident()))
    await leave_early(platform, monkeypatch)
    await asyncio.to_thread(until, lambda: written_in)
    assert threading.get_ident() not in written_in


async def test_a_key_that_is_pasted_for_its_id_stays_a_secret(admin: httpx.AsyncClient, platform: Platform) -> None:
    """Entries cannot be deleted for a long time."""
    issued = (await admin.post("/api-keys", json={})).json()
    for path in (f"/api-keys/{issued['key']}", f"/members/{issued['key']}", f"/models/x{issued['key']}"):
        answer = await admin.delete(f"{path}?confirm=DELETE")
        assert answer.status_code in (400, 404)
    refused = await admin.delete(f"/api-keys/{issued['key']}?confirm=DELETE")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "key_id")
    assert "the key itself; pass its ID" in refused.json()["error"]["message"]
    entries = platform.registry.find(AuditEntry)
    assert [entry.subject for entry in entries] == [issued["id"], "mu-***", "mu-***", "xmu-***", "mu-***"]
    kinds: tuple[type[Record], ...] = (AuditEntry, Event)
    for kind in kinds:
        assert issued["key"][10:] not in "".join(str(record) for record in platform.registry.find(kind))


async def test_what_is_addressed_by_name_is_written_down_by_id(admin: httpx.AsyncClient) -> None:
    ann = (await admin.post("/members", json={"name": "ann", "role": "developer"})).json()["id"]
    await admin.post("/endpoints", json={"name": "demo", "model": "m-1"})
    for method, path, body, subject in (
        ("PATCH", "/members/ann", {"role": "admin"}, ann),
        ("PATCH", "/members/ann", {"role": "admin"}, ann),  # which changes nothing
        ("PATCH", "/members/ann", {"role": "root"}, "ann"),  # nobody looks who that is
        ("DELETE", "/models/Model-1?confirm=DELETE", None, "m-1"),  # refused: it is in use
        ("DELETE", "/members/ann?confirm=DELETE", None, ann),
    ):
        answer = await admin.request(method, path, json=body)
        (entry,) = await audit(admin, f"request_id={answer.headers['x-request-id']}")
        assert entry["subject"] == subject, (method, path, body)


def test_entries_are_never_changed(platform: Platform, admin: httpx.AsyncClient) -> None:
    entry = AuditEntry(
        id="aud-1",
        created_at=platform.keys.get("default", ADMIN_KEY_ID).created_at,
        workspace="default",
        actor="key-1",
        request_id="",
        action="POST /x",
        subject="",
        status=200,
    )
    platform.registry.put(entry)
    with pytest.raises(Conflict):
        platform.registry.put(entry.model_copy(update={"status": 403}))
    with pytest.raises(Conflict):
        platform.registry.delete(entry)
    assert platform.registry.find(AuditEntry) == [entry]
