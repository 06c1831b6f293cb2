"""/v1/events: what happened, who did it, and who may know."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.control_plane.platform import Platform
from app.control_plane.services.events import event
from app.control_plane.services.keys import ADMIN_KEY_ID
from app.core.records import DEFAULT_WORKSPACE
from tests.control_plane.conftest import ClientFor
from tests.control_plane.platforms import ONE_DATABASE, by_name, spec, until


async def events(caller: httpx.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    answer = await caller.get(f"/events?{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def test_an_action_tells_who_did_what_to_what_and_when(admin: httpx.AsyncClient, client_for: ClientFor) -> None:
    before = datetime.now(UTC)
    second = (await admin.post("/api-keys", json={"role": "admin"})).json()
    answer = await client_for(second["key"]).post("/api-keys", json={"role": "inference"})
    (told,) = await events(admin, f"subject={answer.json()['id']}")
    assert (told["object"], told["kind"], told["actor"], told["request_id"]) == (
        "event",
        "issued",
        second["id"],
        answer.headers["x-request-id"],
    )
    assert before <= datetime.fromisoformat(told["created_at"]) <= datetime.now(UTC)
    assert answer.json()["key"] not in str(told)
    assert (await events(admin, f"subject={second['id']}"))[0]["actor"] == ADMIN_KEY_ID


async def test_what_the_platform_does_by_itself_is_its_own_doing(admin: httpx.AsyncClient, platform: Platform) -> None:
    created = (await admin.post("/endpoints", json={"name": "demo", "model": "m-1"})).json()
    until(lambda: by_name(platform)["demo"].state == "healthy")
    told = await events(admin, f"subject={created['id']}")
    actors = {event["kind"]: event["actor"] for event in told}
    assert (actors["created"], actors["healthy"]) == (ADMIN_KEY_ID, "platform")
    assert [event["request_id"] for event in told if event["actor"] == "platform"] == [""] * (len(told) - 1)
    assert told == (await admin.get(f"/endpoints/{created['id']}/events")).json()["data"]
    assert [event["kind"] for event in await events(admin, f"subject={created['id']}&actor={ADMIN_KEY_ID}")] == [
        "created"
    ]


async def test_jobs_models_members_and_keys_tell_of_their_changes(admin: httpx.AsyncClient, platform: Platform) -> None:
    assert [event["kind"] for event in await events(admin, "subject=m-1")] == ["adopted"]
    job = (await admin.post("/jobs", json={"type": "validate", "model": "m-1"})).json()["id"]
    assert (await admin.post(f"/jobs/{job}:stop")).status_code == 202
    until(lambda: platform.jobs.get(DEFAULT_WORKSPACE, job).state == "stopped")
    await admin.delete(f"/jobs/{job}?confirm=DELETE")
    kinds = [event["kind"] for event in await events(admin, f"subject={job}")]
    assert (kinds[0], kinds[-2:]) == ("created", ["stopped", "deleted"])
    member = (await admin.post("/members", json={"name": "ann", "role": "inference"})).json()["id"]
    await admin.patch(f"/members/{member}", json={"role": "admin"})
    await admin.delete(f"/members/{member}?confirm=DELETE")
    assert [event["kind"] for event in await events(admin, f"subject={member}")] == ["added", "changed", "removed"]
    key = (await admin.post("/api-keys", json={})).json()["id"]
    await admin.delete(f"/api-keys/{key}?confirm=DELETE")
    assert [event["kind"] for event in await events(admin, f"subject={key}")] == ["issued", "revoked"]


@pytest.fixture
def told(platform: Platform) -> list[str]:
    """IDs of five events of subject s, an hour apart, the oldest first; the last is of another kind."""
    now = datetime.now(UTC)
    made = [
        event(DEFAULT_WORKSPACE, "s", "last" if hours == 0 else "tick", "").model_copy(
            update={"created_at": now - timedelta(hours=hours)}
        )
        for hours in range(4, -1, -1)
    ]
    platform.registry.put(*made)
    return [event.id for event in made]


async def test_events_are_filtered(admin: httpx.AsyncClient, told: list[str]) -> None:
    async def ids(query: str) -> list[str]:
        return [event["id"] for event in await events(admin, f"subject=s{query}")]

    middle = datetime.fromisoformat((await events(admin, "subject=s"))[2]["created_at"])
    moment = middle.isoformat().replace("+00:00", "Z")
    assert await ids("") == told
    assert await ids("&order=desc") == told[::-1]
    assert await ids("&kind=last") == told[4:]
    assert await ids("&kind=nothing") == []
    assert await ids("&actor=platform") == told
    assert await ids("&actor=key-1") == []
    assert await ids(f"&since={moment}") == told[2:]
    assert await ids(f"&until={moment}") == told[:2]
    assert await ids(f"&since={moment}&until={moment}") == []


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_events_come_in_pages(admin: httpx.AsyncClient, told: list[str], order: str) -> None:
    seen: list[str] = []
    token = ""
    for size in (2, 2, 1):
        page = (await admin.get(f"/events?subject=s&order={order}&page_size=2{token}")).json()
        assert len(page["data"]) == size
        seen += [event["id"] for event in page["data"]]
        token = f"&page_token={page['next_page_token']}"
    assert page["next_page_token"] is None
    assert seen == (told if order == "asc" else told[::-1])


@ONE_DATABASE
async def test_a_wrong_filter_is_named(admin: httpx.AsyncClient) -> None:
    for query, param in (
        ("page_token=nothing", "page_token"),
        ("page_size=0", "page_size"),
        ("order=up", "order"),
        ("since=yesterday", "since"),
        ("until=2026-01-01T00:00:00", "until"),
        ("subject=" + "s" * 129, "subject"),
        ("actor=a%0Ab", "actor"),
    ):
        for path in ("/events", "/audit"):
            answer = await admin.get(f"{path}?{query}")
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), query


async def test_a_nul_in_an_address_is_refused(admin: httpx.AsyncClient) -> None:
    for path in ("/events?subject=a%00b", "/endpoints/a%00b", "/models/%00", "/jobs?model_id=%00"):
        answer = await admin.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request"), path


async def test_a_key_for_some_endpoints_hears_of_these(
    admin: httpx.AsyncClient, client_for: ClientFor, platform: Platform
) -> None:
    platform.declarations.declare([spec("mine"), spec("other")])
    mine, other = (by_name(platform)[name].id for name in ("mine", "other"))
    key = (await admin.post("/api-keys", json={"role": "developer", "endpoints": ["mine"]})).json()["key"]
    holder = client_for(key)
    assert {event["subject"] for event in await events(holder)} == {mine}
    assert {event["subject"] for event in await events(holder, f"subject={mine}")} == {mine}
    assert await events(holder, f"subject={other}") == []
    assert {mine, other} < {event["subject"] for event in await events(admin)}
