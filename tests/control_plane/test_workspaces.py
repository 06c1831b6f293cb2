"""/v1/workspaces: the tenants know nothing of each other."""

from typing import Any

import httpx
import pytest

from app.control_plane.platform import Platform
from app.control_plane.services import workspaces as workspaces_service
from app.control_plane.services.keys import ADMIN_KEY_ID
from app.core.keys import hash_key
from tests.control_plane.conftest import ClientFor
from tests.control_plane.platforms import ONE_DATABASE, WAIT_S, by_name, spec, table_of, until


async def create(admin: httpx.AsyncClient, name: str = "theirs") -> Any:
    answer = await admin.post("/workspaces", json={"name": name})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_workspace_comes_with_a_key_that_is_shown_once(
    admin: httpx.AsyncClient, client_for: ClientFor, platform: Platform
) -> None:
    created = await create(admin)
    listed = await admin.get("/workspaces")
    one = await admin.get(f"/workspaces/{created['id']}")
    assert [found["name"] for found in listed.json()["data"]] == ["default", "theirs"]
    assert one.json() == {name: created[name] for name in ("object", "id", "created_at", "name")}
    assert created["key"] not in listed.text + one.text

    theirs = client_for(created["key"])
    assert [key["id"] for key in (await theirs.get("/api-keys")).json()["data"]] == [created["key_id"]]
    assert (await theirs.post("/api-keys", json={"role": "inference"})).status_code == 201
    table = table_of(platform)
    assert table.grants[hash_key(created["key"])].workspace == created["id"]


async def test_only_the_platforms_admins_manage_workspaces(admin: httpx.AsyncClient, client_for: ClientFor) -> None:
    created = await create(admin)
    developer = (await admin.post("/api-keys", json={"role": "developer"})).json()
    for key in (created["key"], developer["key"]):
        caller = client_for(key)
        for answer in (
            await caller.get("/workspaces"),
            await caller.get(f"/workspaces/{created['id']}"),
            await caller.post("/workspaces", json={"name": "more"}),
            await caller.post(f"/workspaces/{created['id']}/api-keys", json={}),
            await caller.delete(f"/workspaces/{created['id']}?confirm=DELETE"),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


async def test_what_belongs_to_another_workspace_does_not_exist(
    admin: httpx.AsyncClient, client_for: ClientFor, platform: Platform
) -> None:
    platform.declarations.declare([spec("ours")])
    endpoint = by_name(platform)["ours"].id
    key = (await admin.post("/api-keys", json={"role": "inference"})).json()["id"]
    member = (await admin.post("/members", json={"name": "ann", "role": "admin"})).json()["id"]
    job = (await admin.post("/jobs", json={"type": "validate", "model": "m-1"})).json()["id"]

    theirs = client_for((await create(admin))["key"])
    for path in (
        f"/endpoints/{endpoint}",
        f"/endpoints/{endpoint}/events",
        f"/endpoints/{endpoint}/snippet",
        "/models/m-1",
        "/models/Model-1",
        f"/jobs/{job}",
        f"/api-keys/{key}",
        f"/members/{member}",
        "/members/ann",
    ):
        answer = await theirs.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path
    for path in (f"/endpoints/{endpoint}", "/models/m-1", f"/jobs/{job}", f"/api-keys/{key}", f"/members/{member}"):
        assert (await theirs.delete(f"{path}?confirm=DELETE")).status_code == 404
    assert (await theirs.patch(f"/members/{member}", json={"role": "inference"})).status_code == 404
    for path in ("/endpoints", "/models", "/jobs", "/members"):
        assert (await theirs.get(path)).json()["data"] == [], path
    assert (await theirs.post("/endpoints", json={"name": "e", "model": "m-1"})).status_code == 404
    for wish, param in (({"endpoints": [endpoint]}, "endpoints[0]"), ({"member": "ann"}, "member")):
        answer = await theirs.post("/api-keys", json=wish)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    (only,) = (await theirs.get("/events")).json()["data"]
    assert only["kind"] == "issued"  # its own first key
    assert (await theirs.get(f"/events?subject={endpoint}")).json()["data"] == []
    assert all(entry["actor"] != ADMIN_KEY_ID for entry in (await theirs.get("/audit")).json()["data"])


@ONE_DATABASE
async def test_another_workspaces_admin_reads_no_folders_of_the_platform(
    admin: httpx.AsyncClient, client_for: ClientFor, platform: Platform
) -> None:
    base_model = next(e.base_model for e in platform.catalog.entries if "BF16" in e.upload_precisions)
    wish = {"name": "mine", "base_model": base_model, "source": {"uri": "file:///srv/secrets"}}
    refused = await client_for((await create(admin))["key"]).post("/models", json=wish)
    assert (refused.status_code, refused.json()["error"]["param"]) == (403, "source.uri")
    assert (await admin.post("/models", json=wish)).status_code == 202


@ONE_DATABASE
async def test_a_wrong_name_is_refused(admin: httpx.AsyncClient) -> None:
    for name in ("", "1st", "a b", "a" * 65, None, "a\x00"):
        answer = await admin.post("/workspaces", json={"name": name})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "name")


async def test_names_are_taken_once_and_workspaces_are_bounded(
    admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(admin)
    taken = await admin.post("/workspaces", json={"name": "theirs"})
    assert (taken.status_code, taken.json()["error"]["param"]) == (409, "name")
    monkeypatch.setattr(workspaces_service, "MAX_WORKSPACES", 2)
    assert (await admin.post("/workspaces", json={"name": "third"})).status_code == 409


async def test_a_workspace_in_use_stays(admin: httpx.AsyncClient, client_for: ClientFor, platform: Platform) -> None:
    created = await create(admin)
    theirs = client_for(created["key"])
    base_model = next(e.base_model for e in platform.catalog.entries if "BF16" in e.upload_precisions)
    wish = {"name": "mine", "base_model": base_model, "source": {"uri": "s3://bucket/folder"}}
    model = (await theirs.post("/models", json=wish)).json()
    assert "id" in model, model
    refused = await admin.delete(f"/workspaces/{created['id']}?confirm=DELETE")
    assert refused.status_code == 409
    assert model["id"] in refused.json()["error"]["message"]
    assert (await theirs.get("/models")).status_code == 200

    for job in platform.jobs.find(created["id"]):
        platform.jobs.stop(created["id"], job.id)
    until(lambda: all(job.state == "stopped" for job in platform.jobs.find(created["id"])))
    until(lambda: all(found.state == "failed" for found in platform.models.find(created["id"])))
    platform.registry.delete(*platform.models.versions(platform.models.get(created["id"], model["id"])))
    platform.registry.delete(platform.models.get(created["id"], model["id"]))
    assert (await admin.delete(f"/workspaces/{created['id']}?confirm=DELETE")).status_code == 204
    assert platform.jobs.find(created["id"]) == []


async def test_a_deleted_workspace_takes_its_keys_along(
    admin: httpx.AsyncClient, client_for: ClientFor, platform: Platform
) -> None:
    created = await create(admin)
    theirs = client_for(created["key"])
    await theirs.post("/members", json={"name": "ann", "role": "admin"})
    more = (await theirs.post("/api-keys", json={"role": "inference", "member": "ann"})).json()
    assert (await admin.delete(f"/workspaces/{created['id']}")).status_code == 400
    assert (await admin.delete(f"/workspaces/{created['id']}?confirm=DELETE")).status_code == 204
    assert (await theirs.get("/endpoints")).status_code == 401
    table = table_of(platform)
    assert not {hash_key(created["key"]), hash_key(more["key"])} & set(table.grants)
    assert (await admin.get(f"/workspaces/{created['id']}")).status_code == 404
    assert (await admin.delete(f"/workspaces/{created['id']}?confirm=DELETE")).status_code == 404
    told = (await admin.get(f"/events?subject={created['id']}")).json()["data"]
    assert [event["kind"] for event in told] == ["created", "deleted"]
    left = (await admin.get(f"/audit?workspace={created['id']}")).json()["data"]
    assert [entry["action"].split("/")[-1] for entry in left] == ["members", "api-keys"]  # the audit outlives it
    await create(admin)  # the name is free again


async def test_the_first_workspace_stays(admin: httpx.AsyncClient) -> None:
    assert (await admin.delete("/workspaces/default?confirm=DELETE")).status_code == 409
    assert (await admin.get("/endpoints", timeout=WAIT_S)).status_code == 200


async def test_a_workspace_that_lost_its_keys_gets_another(
    admin: httpx.AsyncClient, client_for: ClientFor, platform: Platform
) -> None:
    created = await create(admin)
    path = f"/workspaces/{created['id']}/api-keys"
    issued = await admin.post(path, json={"description": "found again"})
    assert issued.status_code == 201
    shown = issued.json()
    assert (shown["role"], shown["description"]) == ("admin", "found again")
    theirs = client_for(shown["key"])
    listed = (await theirs.get("/api-keys")).json()["data"]
    assert [key["id"] for key in listed] == [created["key_id"], shown["id"]]
    assert (await admin.get(f"/api-keys/{shown['id']}")).status_code == 404  # it is none of the first workspace's
    told = (await theirs.get(f"/events?subject={shown['id']}")).json()["data"]
    assert [(event["kind"], event["actor"]) for event in told] == [("issued", ADMIN_KEY_ID)]
    asked = (await admin.get(f"/audit?subject={created['id']}")).json()["data"]
    assert [entry["action"].split()[1] for entry in asked] == [
        "/platform/v1/workspaces", "/platform/v1/workspaces/{workspace_id}/api-keys"
    ]  # fmt: skip
    assert (await admin.post("/workspaces/ws-none/api-keys", json={})).status_code == 404

    while (await admin.post(path, json={})).status_code == 201:
        pass
    assert (await admin.post(path, json={})).status_code == 409  # as many as there may be, and all of them lost
    developer = (await theirs.post("/api-keys", json={"role": "developer"})).json()
    only = (await admin.post(path, json={"revoke_others": True})).json()
    assert (await theirs.get("/api-keys")).status_code == 401
    left = (await client_for(only["key"]).get("/api-keys")).json()["data"]
    assert [key["id"] for key in left] == [developer["id"], only["id"]]


async def test_the_first_key_of_all_outlives_the_others(admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/workspaces/default/api-keys", json={"revoke_others": True})).status_code == 201
    assert (await admin.get("/workspaces")).status_code == 200
