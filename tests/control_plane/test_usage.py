"""Usage at the control plane: each batch counts once, and who may see what it comes to."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.control_plane.platform import Platform
from app.core.errors import BadRequest, Superseded
from app.core.records import DEFAULT_WORKSPACE, ApiKey, UsageHour
from app.core.usage import Account, Entry, UsageBatch, rows_of
from app.settings import Settings
from app.store.database import Registry
from tests.control_plane.conftest import ClientFor, OpenPlatform
from tests.control_plane.platforms import spec

HOUR = datetime(2026, 1, 31, 9, tzinfo=UTC)
MINE = Account(DEFAULT_WORKSPACE, "key-1", "ep-1")
SUMS = {"requests": 1, "partial_requests": 0, "prompt_tokens": 10, "cached_tokens": 4, "completion_tokens": 3}


def entry(account: Account = MINE, at: datetime = HOUR, **fields: int) -> Entry:
    return Entry(**account._asdict(), at=at.timestamp(), **(SUMS | fields))


def batch(*entries: Entry, spool: str = "r1-1", at_bytes: int = 0, size_bytes: int = 100) -> str:
    rows = rows_of(entries)
    return UsageBatch(spool=spool, from_bytes=at_bytes, to_bytes=at_bytes + size_bytes, rows=rows).model_dump_json()


async def usage(caller: httpx.AsyncClient, **params: Any) -> dict[str, Any]:
    answer = await caller.get("/usage", params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def short(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in (*names, "requests")) for row in rows]


def test_a_batch_counts_once_however_often_it_comes(platform: Platform) -> None:
    sent = batch(entry(), entry())
    assert [platform.usage.take(sent) for _ in range(3)] == [100, 100, 100]
    assert platform.usage.take(batch(entry(), at_bytes=100)) == 200
    assert platform.usage.take(batch(entry(), at_bytes=500)) == 200  # from before a restore, or out of turn
    assert platform.usage.take(batch(at_bytes=0, size_bytes=0)) == 200  # who does not know asks
    (hour,) = platform.registry.find(UsageHour)
    assert (hour.requests, hour.prompt_tokens, hour.cached_tokens, hour.completion_tokens) == (3, 30, 12, 9)
    assert (hour.created_at, hour.day) == (HOUR, "2026-01-31")


def test_another_spool_adds_to_the_same_hour(platform: Platform) -> None:
    assert platform.usage.take(batch(entry())) == 100
    assert platform.usage.take(batch(entry(), spool="r2-1")) == 100
    (hour,) = platform.registry.find(UsageHour)
    assert hour.requests == 2


def test_what_is_no_batch_is_refused(platform: Platform) -> None:
    for wrong in ("", "{}", batch(entry()).replace('"requests":1', '"requests":-1')):
        with pytest.raises(BadRequest):
            platform.usage.take(wrong)
    assert platform.registry.find(UsageHour) == []


def test_a_control_plane_that_was_taken_over_takes_nothing(platform: Platform, settings: Settings) -> None:
    successor = Registry(settings.database)
    successor.take_turn()
    with pytest.raises(Superseded):
        platform.usage.take(batch(entry()))
    assert successor.find(UsageHour) == []
    successor.close()


def test_the_next_control_plane_goes_on_where_the_last_one_was(open_platform: OpenPlatform) -> None:
    open_platform().usage.take(batch(entry()))
    successor = open_platform()
    assert successor.usage.take(batch(entry())) == 100
    assert successor.usage.take(batch(entry(), at_bytes=100)) == 200
    (hour,) = successor.registry.find(UsageHour)
    assert hour.requests == 2


@pytest.fixture
def filled(platform: Platform) -> Platform:
    """Three hours over two days, of two keys, two endpoints and two workspaces."""
    other, elsewhere = MINE._replace(endpoint_id="ep-2", key_id="key-2"), MINE._replace(workspace="ws-theirs")
    platform.usage.take(
        batch(
            entry(), entry(at=HOUR + timedelta(minutes=59, seconds=59)), entry(at=HOUR + timedelta(hours=1)),
            entry(other), entry(other, at=HOUR + timedelta(days=1), partial_requests=1), entry(elsewhere),
        )
    )  # fmt: skip
    return platform


async def test_it_is_added_up_by_whatever_is_asked_for(filled: Platform, admin: httpx.AsyncClient) -> None:
    found = await usage(admin)
    assert short(found["data"], "endpoint") == [("ep-1", 3), ("ep-2", 2)]
    assert found["data"][1] == {
        "object": "usage", "endpoint": "ep-2", "endpoint_name": "", "requests": 2, "partial_requests": 1,
        "prompt_tokens": 20, "cached_tokens": 8, "completion_tokens": 6, "total_tokens": 26,
    }  # fmt: skip
    assert (found["object"], found["next_page_token"]) == ("list", None)
    assert (found["totals"]["requests"], found["totals"]["total_tokens"]) == (5, 65)
    by_hour = (await usage(admin, group_by="hour"))["data"]
    hours = ["2026-01-31T09:00:00Z", "2026-01-31T10:00:00Z", "2026-02-01T09:00:00Z"]
    assert short(by_hour, "hour") == list(zip(hours, (3, 1, 1), strict=True))
    assert short((await usage(admin, group_by="day"))["data"], "day") == [("2026-01-31", 4), ("2026-02-01", 1)]
    assert short((await usage(admin, group_by="key"))["data"], "key") == [("key-1", 3), ("key-2", 2)]
    both = (await usage(admin, group_by=["key", "day"]))["data"]
    assert short(both, "day", "key") == [
        ("2026-01-31", "key-1", 3),
        ("2026-01-31", "key-2", 1),
        ("2026-02-01", "key-2", 1),
    ]


async def test_a_window_has_whole_hours(filled: Platform, admin: httpx.AsyncClient) -> None:
    async def requests(**window: str) -> int:
        return int((await usage(admin, **window))["totals"]["requests"])

    assert await requests(since="2026-01-31T09:30:00Z", until="2026-01-31T10:00:00Z") == 3
    assert await requests(since="2026-01-31T11:00:00+01:00") == 2
    assert await requests(until="2026-01-31T09:00:00Z") == 0
    assert await requests(endpoint="ep-2") == 2
    assert await requests(key="key-1", endpoint="ep-2") == 0


async def test_pages_follow_each_other(filled: Platform, admin: httpx.AsyncClient) -> None:
    for by in (["hour", "endpoint", "key"], ["endpoint"], ["workspace", "day"]):
        whole = (await usage(admin, group_by=by, workspace="all"))["data"]
        rows, token = [], None
        while True:
            page = await usage(
                admin, group_by=by, workspace="all", page_size=1, **({"page_token": token} if token else {})
            )
            rows += page["data"]
            assert page["totals"]["requests"] == 6
            token = page["next_page_token"]
            if token is None:
                break
        assert rows == whole
        assert len(rows) >= 2


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("group_by=model", "group_by"),
        ("since=yesterday", "since"),
        ("page_token=what~ever", "page_token"),
        ("group_by=hour&page_token=what", "page_token"),
        ("group_by=hour&page_token=0001-01-01T00:00:00%2B14:00", "page_token"),
        ("page_size=0", "page_size"),
    ],
)
async def test_what_cannot_be_asked_is_said(admin: httpx.AsyncClient, query: str, param: str) -> None:
    answer = await admin.get(f"/usage?{query}")
    assert answer.status_code == 400
    assert param in answer.json()["error"]["param"]


async def test_without_any_usage_the_list_is_empty(admin: httpx.AsyncClient) -> None:
    found = await usage(admin)
    assert found["data"] == []
    assert set(found["totals"].values()) == {0}


async def test_inference_keys_see_nothing_and_developers_their_own_workspace(
    filled: Platform, admin: httpx.AsyncClient, client_for: ClientFor
) -> None:
    async def issue(**fields: Any) -> httpx.AsyncClient:
        return client_for((await admin.post("/api-keys", json=fields)).json()["key"])

    assert (await (await issue(role="inference")).get("/usage")).status_code == 403
    developer = await issue(role="developer")
    assert (await usage(developer))["totals"]["requests"] == 5
    for others in ("ws-theirs", "all"):
        assert (await developer.get("/usage", params={"workspace": others})).status_code == 403
    assert (await usage(admin, workspace="ws-theirs"))["totals"]["requests"] == 1
    everywhere = await usage(admin, workspace="all", group_by="workspace")
    assert short(everywhere["data"], "workspace") == [(DEFAULT_WORKSPACE, 5), ("ws-theirs", 1)]


async def test_a_key_for_some_endpoints_sees_those(
    filled: Platform, admin: httpx.AsyncClient, client_for: ClientFor
) -> None:
    endpoint = filled.endpoints.create(DEFAULT_WORKSPACE, spec("one"))
    filled.usage.take(batch(entry(MINE._replace(endpoint_id=endpoint.id)), spool="r3-1"))
    key = (await admin.post("/api-keys", json={"role": "developer", "endpoints": [endpoint.id]})).json()["key"]
    found = await usage(client_for(key))
    assert short(found["data"], "endpoint", "endpoint_name") == [(endpoint.id, "one", 1)]
    assert found["totals"]["requests"] == 1
    assert (await client_for(key).get("/usage?endpoint=ep-2")).status_code == 404


async def test_what_is_deleted_stays_by_its_name(platform: Platform, admin: httpx.AsyncClient) -> None:
    endpoint = platform.endpoints.create(DEFAULT_WORKSPACE, spec("gone"))
    key = (await admin.post("/api-keys", json={"role": "inference", "description": "the shop"})).json()["id"]
    platform.usage.take(batch(entry(Account(DEFAULT_WORKSPACE, key, endpoint.id))))
    await admin.delete(f"/api-keys/{key}?confirm=DELETE")
    platform.registry.delete(*platform.registry.find(ApiKey, id=key))
    platform.registry.delete(endpoint)
    (row,) = (await usage(admin, group_by=["endpoint", "key"]))["data"]
    assert (row["endpoint_name"], row["key"], row["key_description"]) == ("gone", key, "the shop")
