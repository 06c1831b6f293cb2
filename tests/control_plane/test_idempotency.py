"""POST with an Idempotency-Key: sent twice, made once."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app.control_plane.platform import Platform
from app.control_plane.services import idempotency
from app.control_plane.services.idempotency import Proof
from app.core.errors import Unavailable
from app.core.job_specs import JobProgress
from app.core.records import ApiKey, Job, Model, Replay
from app.core.records import Endpoint as EndpointRecord
from app.store.database import Registry
from tests.control_plane.clocks import WallClock
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import WAIT_S, admin_key, client_of

ENDPOINT = {"name": "demo", "model": "Model-1"}
MODEL = {"name": "mine", "base_model": "Qwen2-0.5B", "source": {"uri": "s3://bucket/weights"}}
JOB = {"type": "validate", "model": "m-1"}


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [("/endpoints", ENDPOINT, EndpointRecord), ("/models", MODEL, Model), ("/jobs", JOB, Job)],
)
async def test_the_same_wish_twice_is_one(
    admin: httpx.AsyncClient, platform: Platform, path: str, body: dict[str, Any], kind: Any
) -> None:
    headers = {"idempotency-key": "k-1"}
    before = platform.registry.count(kind)
    answers = [await admin.post(path, json=body, headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202] * 3, answers[0].text
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert platform.registry.count(kind) == before + 1
    assert platform.registry.count(Replay) == 1


async def test_the_answer_is_how_it_is_now(admin: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "k-1"}
    made = (await admin.post("/endpoints", json=ENDPOINT, headers=headers)).json()
    await admin.post(f"/endpoints/{made['id']}:stop")
    again = await admin.post("/endpoints", json=ENDPOINT, headers=headers)
    assert (again.status_code, again.json()["state"]) == (202, "stopped")


async def test_the_same_key_with_another_wish_is_refused(admin: httpx.AsyncClient, platform: Platform) -> None:
    headers = {"idempotency-key": "k-1"}
    await admin.post("/endpoints", json=ENDPOINT, headers=headers)
    answer = await admin.post("/endpoints", json=ENDPOINT | {"name": "other"}, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (409, "idempotency_key_reused", "Idempotency-Key")
    assert platform.registry.count(EndpointRecord) == 1


async def test_what_means_the_same_is_the_same_wish(admin: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "k-1"}
    made = (await admin.post("/endpoints", json=ENDPOINT, headers=headers)).json()
    spelled_out = {"model": "Model-1", "precision": "BF16", "name": "demo"}
    again = await admin.post("/endpoints", json=spelled_out, headers=headers)
    assert again.json()["id"] == made["id"]


async def test_keys_of_other_paths_and_workspaces_are_others(
    admin: httpx.AsyncClient, client_for: Callable[[str | None], httpx.AsyncClient]
) -> None:
    headers = {"idempotency-key": "k-1"}
    other = (await admin.post("/workspaces", json={"name": "other"})).json()
    for path, body in (("/endpoints", ENDPOINT), ("/models", MODEL), ("/jobs", JOB)):
        assert (await admin.post(path, json=body, headers=headers)).status_code == 202
    theirs = await client_for(other["key"]).post("/models", json=MODEL, headers=headers)
    assert theirs.status_code == 202


async def test_a_refused_wish_leaves_the_key_unused(admin: httpx.AsyncClient, platform: Platform) -> None:
    headers = {"idempotency-key": "k-1"}
    assert (await admin.post("/endpoints", json=ENDPOINT | {"model": "x"}, headers=headers)).status_code == 404
    assert platform.registry.count(Replay) == 0
    assert (await admin.post("/endpoints", json=ENDPOINT, headers=headers)).status_code == 202


async def test_what_is_gone_is_not_made_again(admin: httpx.AsyncClient, platform: Platform) -> None:
    headers = {"idempotency-key": "k-1"}
    made = (await admin.post("/endpoints", json=ENDPOINT, headers=headers)).json()
    await admin.delete(f"/endpoints/{made['id']}?confirm=DELETE")
    while platform.registry.count(EndpointRecord, deleted_at=None):
        platform.endpoint_loop.nudge()
        await asyncio.sleep(0.01)
    assert (await admin.post("/endpoints", json=ENDPOINT, headers=headers)).status_code == 404
    assert platform.registry.count(EndpointRecord) == 1


async def test_two_at_the_same_moment_are_one(admin: httpx.AsyncClient, platform: Platform) -> None:
    headers = {"idempotency-key": "k-1"}
    answers = await asyncio.gather(*(admin.post("/jobs", json=JOB, headers=headers) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == platform.registry.count(Job) == 1


async def test_after_a_day_a_key_is_as_good_as_new(open_platform: OpenPlatform) -> None:
    now = WallClock()
    platform = open_platform(now=now)
    async with client_of(platform, admin_key(platform.settings)) as client:
        client.headers["idempotency-key"] = "k-1"
        first = (await client.post("/jobs", json=JOB)).json()
        now.jump(hours=23, minutes=59)
        assert (await client.post("/jobs", json=JOB)).json()["id"] == first["id"]
        now.jump(minutes=2)
        assert (await client.post("/jobs", json=JOB)).json()["id"] != first["id"]


@pytest.mark.parametrize("key", ["", "k" * 257])
async def test_a_key_has_a_length(admin: httpx.AsyncClient, key: str) -> None:
    answer = await admin.post("/endpoints", json=ENDPOINT, headers={"idempotency-key": key})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "idempotency-key")


async def test_the_record_and_its_key_are_written_together_or_not_at_all(
    admin: httpx.AsyncClient, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a crash between the two would have the wish carried out twice."""
    together: list[set[type]] = []
    put = Registry.put

    def watched(self: Registry, *records: Any) -> None:
        together.append({type(record) for record in records})
        put(self, *records)

    monkeypatch.setattr(Registry, "put", watched)
    await admin.post("/jobs", json=JOB, headers={"idempotency-key": "k-1"})
    (written,) = [kinds for kinds in together if Replay in kinds]
    assert Job in written


def test_a_slow_request_holds_up_only_its_own_repeats(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, let_go = threading.Event(), threading.Event()

    def slow(proof: Proof) -> str:
        begun.set()
        assert let_go.wait(WAIT_S)
        platform.registry.put(*proof("a"))
        return "a"

    def once(key: str, make: Callable[[Proof], str]) -> str:
        return platform.idempotency.once("default", "/p", key, JobProgress(), make, lambda made: f"{made} again")

    with ThreadPoolExecutor() as pool:
        first = pool.submit(once, "k-1", slow)
        try:
            assert begun.wait(WAIT_S)
            assert pool.submit(once, "k-2", lambda _: "b").result(WAIT_S / 2) == "b"
            with monkeypatch.context() as impatient:
                impatient.setattr(idempotency, "PATIENCE_S", 0.01)
                refused = pool.submit(once, "k-1", lambda _: "another")
                with pytest.raises(Unavailable, match="still being carried out"):
                    refused.result(WAIT_S / 2)
            repeat = pool.submit(once, "k-1", lambda _: "another")
        finally:
            let_go.set()
        assert (first.result(WAIT_S), repeat.result(WAIT_S)) == ("a", "a again")


@pytest.mark.parametrize(
    ("path", "body"), [("/members", {"name": "ann", "role": "developer"}), ("/workspaces", {"name": "theirs"})]
)
async def test_members_and_workspaces_are_made_once(admin: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    headers = {"idempotency-key": "k-1"}
    first, again = [await admin.post(path, json=body, headers=headers) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 201), again.text
    secret = {"key": None, "key_id": None} if path == "/workspaces" else {}
    assert again.json() == first.json() | secret  # what is shown once is not shown again
    assert (await admin.post(path, json=body)).status_code == 409
    assert (await admin.post(path, json=body | {"name": "bob"}, headers=headers)).status_code == 409


@pytest.mark.parametrize("path", ["/api-keys", "/workspaces/{}/api-keys"])
async def test_a_key_is_issued_once_and_shown_once(admin: httpx.AsyncClient, platform: Platform, path: str) -> None:
    workspace = (await admin.post("/workspaces", json={"name": "theirs"})).json()["id"]
    headers = {"idempotency-key": "k-1"}
    first = await admin.post(path.format(workspace), json={}, headers=headers)
    before = platform.registry.count(ApiKey)
    again = await admin.post(path.format(workspace), json={}, headers=headers)
    error = again.json()["error"]
    assert (first.status_code, again.status_code, error["code"]) == (201, 409, "key_shown_already")
    assert first.json()["id"] in error["message"]
    assert "cannot be shown again" in error["message"]
    assert first.json()["key"] not in again.text
    assert platform.registry.count(ApiKey) == before


async def test_the_same_key_for_another_workspace_is_another_wish(admin: httpx.AsyncClient) -> None:
    for name in ("one", "two"):
        workspace = (await admin.post("/workspaces", json={"name": name})).json()["id"]
        answer = await admin.post(f"/workspaces/{workspace}/api-keys", json={}, headers={"idempotency-key": "k-1"})
        assert answer.status_code == 201, answer.text
