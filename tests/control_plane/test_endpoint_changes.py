"""An endpoint's life over the API: changed, stopped, started, deleted, restored, purged; and lists of them."""

import json
import re
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from app.control_plane.platform import Platform
from app.core.records import Endpoint
from app.core.specs import EndpointSpec, MachineType
from app.settings import Settings
from tests.control_plane.conftest import ClientFor, OpenPlatform
from tests.control_plane.platforms import (
    ONE_DATABASE,
    FakeCluster,
    admin_key,
    by_name,
    client_of,
    publish_model,
    spec,
    table_of,
    until_answer,
)

NEW = {"name": "demo", "model": "Model-1", "scale": {"min_units": 1, "max_units": 2}}


async def until_settled(admin: httpx.AsyncClient, endpoint_id: str) -> Any:
    """The endpoint once its newest wish is carried out."""
    return await until_answer(
        lambda: admin.get(f"/endpoints/{endpoint_id}?deleted=true"),
        lambda shown: shown["generation"] == shown["observed_generation"],
    )


async def new_endpoint(admin: httpx.AsyncClient, **fields: Any) -> Any:
    """One that serves."""
    answer = await admin.post("/endpoints", json=NEW | fields)
    assert answer.status_code == 202, answer.text
    return await until_settled(admin, answer.json()["id"])


async def deleted_endpoint(admin: httpx.AsyncClient, **fields: Any) -> Any:
    endpoint = await new_endpoint(admin, **fields)
    assert (await admin.delete(f"/endpoints/{endpoint['id']}?confirm=DELETE")).status_code == 202
    return await until_answer(
        lambda: admin.get(f"/endpoints/{endpoint['id']}?deleted=true"), lambda shown: shown["deleted_at"] is not None
    )


def refusal(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json()["error"]["param"]


@ONE_DATABASE
@pytest.mark.parametrize(
    ("changes", "effect"),
    [
        ({}, "none"),
        ({"name": "demo", "scale": {"max_units": 2}}, "none"),
        ({"name": "other"}, "in_place"),
        ({"description": "words"}, "in_place"),
        ({"scale": {"max_units": 3}}, "in_place"),
        ({"limits": {"qps_per_unit": 2.5}}, "in_place"),
        ({"auto_stop_s": 3600}, "in_place"),
        ({"allowed_networks": ["10.0.0.0/8"]}, "in_place"),
        ({"request_defaults": {"profile": "maas", "max_tokens": 64, "stop": ["."]}}, "in_place"),
        ({"features": {"structured_output": True}}, "in_place"),
        ({"model": "m-1"}, "in_place"),  # the same model by its ID
        ({"machine_type": "cpu-small"}, "in_place"),  # what the platform had chosen
        ({"max_model_len": 64}, "rolling"),
        ({"engine": {"max_num_seqs": 8}}, "rolling"),
        ({"scale": {"max_units": 3}, "engine": {"threads": 2}}, "rolling"),
    ],
)
async def test_a_change_says_whether_units_are_replaced_and_so_it_is(
    admin: httpx.AsyncClient, cluster: FakeCluster, changes: dict[str, Any], effect: str
) -> None:
    before = await new_endpoint(admin)
    answer = await admin.patch(f"/endpoints/{before['id']}", json=changes)
    changed = answer.json()
    assert (answer.status_code, changed["effect"]) == (200, effect), answer.text
    assert changed["effect_reason"]
    assert (changed["etag"] == before["etag"]) is (effect == "none")
    assert answer.headers["etag"] == f'"{changed["etag"]}"'
    after = await until_settled(admin, before["id"])
    assert (after["revision"] != before["revision"]) is (effect == "rolling")
    for name, value in changes.items():
        if isinstance(value, dict):
            assert {**before[name], **value} == after[name]
        else:
            assert after[name] == value
    assert (after["running_since"], after["created_at"]) == (before["running_since"], before["created_at"])
    await until_answer(
        lambda: admin.get("/endpoints"), lambda _: set(cluster.applications) == {(after["id"], after["revision"])}
    )


async def test_a_rolling_change_names_what_units_are_told(admin: httpx.AsyncClient) -> None:
    endpoint = await new_endpoint(admin)
    changes = {"description": "words", "max_model_len": 64, "engine": {"threads": 2}}
    reason = (await admin.patch(f"/endpoints/{endpoint['id']}", json=changes)).json()["effect_reason"]
    assert "max_model_len, engine.threads" in reason
    assert "description" not in reason
    kinds = [e["kind"] for e in (await admin.get(f"/endpoints/{endpoint['id']}/events")).json()["data"]]
    assert "changed" in kinds


@ONE_DATABASE
@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"name": "1st"}, 400, "name"),
        ({"name": "taken"}, 409, "name"),
        ({"model": "nothing"}, 404, "model"),
        ({"precision": "W4A8"}, 404, "precision"),
        ({"machine_type": "gpu-9"}, 400, "machine_type"),
        ({"scale": {"min_units": 3}}, 400, "scale"),
        ({"request_defaults": {"profile": "other"}}, 400, "request_defaults.profile"),
        ({"request_defaults": {"temperature": 3}}, 400, "request_defaults.temperature"),
        ({"request_defaults": {"top_k": 0}}, 400, "request_defaults.top_k"),
        ({"request_defaults": {"n": 2}}, 400, "request_defaults.n"),
        ({"features": {"structured_output": "yes"}}, 400, "features.structured_output"),
        ({"model": None}, 400, "model"),
        ({"state": "stopped"}, 400, "state"),
    ],
)
async def test_a_wrong_change_is_refused_and_changes_nothing(
    admin: httpx.AsyncClient, changes: dict[str, Any], status: int, param: str
) -> None:
    endpoint = await new_endpoint(admin)
    await new_endpoint(admin, name="taken")
    assert refusal(await admin.patch(f"/endpoints/{endpoint['id']}", json=changes)) == (status, param)
    assert (await admin.get(f"/endpoints/{endpoint['id']}")).json() == endpoint


@ONE_DATABASE
@pytest.mark.parametrize("raw", [b"", b"[]", b'"x"', b"null", b"{"])
async def test_a_change_that_is_no_object_is_refused(admin: httpx.AsyncClient, raw: bytes) -> None:
    endpoint = await new_endpoint(admin)
    answer = await admin.patch(
        f"/endpoints/{endpoint['id']}", content=raw, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_of_two_changes_of_one_version_the_second_is_refused(admin: httpx.AsyncClient) -> None:
    endpoint = await new_endpoint(admin)
    read = await admin.get(f"/endpoints/{endpoint['id']}")
    headers = {"if-match": read.headers["etag"]}
    path = f"/endpoints/{endpoint['id']}"
    assert (await admin.patch(path, json={"description": "mine"}, headers=headers)).status_code == 200
    for late in (
        admin.patch(path, json={"description": "yours"}, headers=headers),
        admin.post(f"{path}:stop", headers=headers),
        admin.post(f"{path}:start", headers=headers),
        admin.delete(f"{path}?confirm=DELETE", headers=headers),
    ):
        answer = await late
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "etag_mismatch")
    now = (await admin.get(path)).json()
    assert (now["description"], now["state"] in ("stopped", "deleting")) == ("mine", False)
    assert (await admin.patch(path, json={"description": "yours"}, headers={"if-match": now["etag"]})).is_success


async def test_stop_takes_the_units_and_start_brings_them_back(
    admin: httpx.AsyncClient, cluster: FakeCluster, platform: Platform
) -> None:
    endpoint = await new_endpoint(admin)
    path = f"/endpoints/{endpoint['id']}"
    answer = await admin.post(f"{path}:stop")
    assert (answer.status_code, answer.json()["state"]) == (202, "stopped")
    stopped = await until_settled(admin, endpoint["id"])
    assert (stopped["state"], stopped["reason"]) == ("stopped", "stopped by a caller")
    assert stopped["units"] == {"running": 0, "starting": 0, "target": 0, "step": 1}
    assert stopped["traffic"] == cluster.applications == {}
    assert stopped["running_since"] is None
    table = table_of(platform)
    assert table.routes[endpoint["id"]].targets == ()
    assert (await admin.post(f"{path}:stop")).json() == stopped  # once more: nothing happens

    answer = await admin.post(f"{path}:start")
    assert (answer.status_code, answer.json()["state"]) == (202, "scheduling")
    again = await until_settled(admin, endpoint["id"])
    assert (again["state"], again["revision"]) == ("healthy", endpoint["revision"])
    assert again["running_since"] > endpoint["running_since"]
    assert (await admin.post(f"{path}:start")).json() == again


async def test_a_stopped_one_takes_changes_and_starts_with_them(admin: httpx.AsyncClient, cluster: FakeCluster) -> None:
    endpoint = await new_endpoint(admin)
    path = f"/endpoints/{endpoint['id']}"
    await admin.post(f"{path}:stop")
    changed = (await admin.patch(path, json={"max_model_len": 64})).json()
    assert (changed["state"], changed["effect"]) == ("stopped", "none")
    assert "stopped" in changed["effect_reason"]
    await until_settled(admin, endpoint["id"])
    assert cluster.applications == {}
    await admin.post(f"{path}:start")
    again = await until_settled(admin, endpoint["id"])
    assert (again["state"], again["max_model_len"]) == ("healthy", 64)
    assert again["revision"] != endpoint["revision"]


async def test_a_deleted_one_is_hidden_and_comes_back_as_it_was(
    admin: httpx.AsyncClient, client_for: ClientFor, cluster: FakeCluster
) -> None:
    before = await new_endpoint(admin, description="words")
    path = f"/endpoints/{before['id']}"
    key = (await admin.post("/api-keys", json={"role": "developer", "endpoints": [before["id"]]})).json()
    await admin.delete(f"{path}?confirm=DELETE")
    gone = await until_answer(lambda: admin.get(f"{path}?deleted=true"), lambda shown: shown["deleted_at"] is not None)
    assert cluster.applications == {}
    assert gone["units"]["running"] == 0
    deleted_at = datetime.fromisoformat(gone["deleted_at"])
    assert datetime.fromisoformat(gone["purge_at"]) == deleted_at + timedelta(days=30)
    assert (await admin.get(path)).status_code == (await admin.post(f"{path}:stop")).status_code == 404
    assert (await admin.get("/endpoints")).json()["data"] == []
    assert [e["id"] for e in (await admin.get("/endpoints?deleted=true")).json()["data"]] == [before["id"]]
    assert (await admin.get(f"{path}/events")).json()["data"][-1]["kind"] == "deleted"

    answer = await admin.post(f"{path}:restore")
    assert (answer.status_code, answer.json()["state"]) == (202, "scheduling")
    after = await until_settled(admin, before["id"])
    assert after["state"] == "healthy"
    same = ("id", "name", "description", "model", "scale", "revision", "created_at", "machine_type")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert after["deleted_at"] is after["purge_at"] is None
    assert (await admin.get("/endpoints?deleted=true")).json()["data"] == []
    assert (await client_for(key["key"]).get(path)).status_code == 200
    kinds = [e["kind"] for e in (await admin.get(f"{path}/events")).json()["data"]]
    assert [k for k in kinds if k in ("deleting", "deleted", "restored")] == ["deleting", "deleted", "restored"]


async def test_only_what_is_deleted_is_restored_and_only_while_its_name_is_free(admin: httpx.AsyncClient) -> None:
    endpoint = await new_endpoint(admin)
    answer = await admin.post(f"/endpoints/{endpoint['id']}:restore")
    assert (answer.status_code, "is healthy" in answer.json()["error"]["message"]) == (409, True)
    await admin.delete(f"/endpoints/{endpoint['id']}?confirm=DELETE")
    second = await new_endpoint(admin)  # the name is free at once
    assert refusal(await admin.post(f"/endpoints/{endpoint['id']}:restore")) == (409, "name")
    assert (await admin.patch(f"/endpoints/{second['id']}", json={"name": "moved"})).is_success
    assert (await admin.post(f"/endpoints/{endpoint['id']}:restore")).status_code == 202
    assert (await admin.post("/endpoints/ep-9:restore")).status_code == 404


async def test_one_whose_machine_type_is_gone_is_changed_and_restored(
    open_platform: OpenPlatform, settings: Settings
) -> None:
    platform = open_platform(machine_types=[MachineType(name="old")])
    admin = client_of(platform, admin_key(settings))
    made = (await admin.post("/endpoints", json={"name": "demo", "model": "m-1", "machine_type": "old"})).json()
    path = f"/endpoints/{made['id']}"
    await admin.delete(f"{path}?confirm=DELETE")
    await until_answer(lambda: admin.get(f"{path}?deleted=true"), lambda shown: shown["deleted_at"] is not None)

    admin = client_of(open_platform(), admin_key(settings))
    assert refusal(await admin.post(f"{path}:restore")) == (400, "machine_type")
    assert refusal(await admin.patch(path, json={"machine_type": "older"})) == (400, "machine_type")
    changed = await admin.patch(path, json={"machine_type": None})
    assert (changed.status_code, changed.json()["effect"]) == (200, "none")
    assert changed.json()["deleted_at"] is not None
    assert (changed.json()["machine_type"], changed.json()["state"]) == ("cpu-small", "deleting")
    assert (await admin.post(f"{path}:restore")).status_code == 202
    assert (await until_settled(admin, made["id"]))["state"] == "healthy"


async def test_one_that_still_drains_is_restored_too(admin: httpx.AsyncClient, platform: Platform) -> None:
    endpoint = await new_endpoint(admin)
    platform.endpoint_loop.stop()  # nothing is carried out any more
    path = f"/endpoints/{endpoint['id']}"
    deleting = (await admin.delete(f"{path}?confirm=DELETE")).json()
    assert (await admin.delete(f"{path}?confirm=DELETE")).json() == deleting  # once more: nothing happens
    for refused in (admin.post(f"{path}:stop"), admin.post(f"{path}:start"), admin.patch(path, json={"name": "x"})):
        answer = await refused
        assert (answer.status_code, "deleting" in answer.json()["error"]["message"]) == (409, True)
    assert (await admin.post(f"{path}:restore")).status_code == 202
    for _ in range(3):
        platform.reconciler.step()
    now = (await admin.get(path)).json()
    assert (now["state"], now["revision"], now["deleted_at"]) == ("healthy", endpoint["revision"], None)


async def test_a_purged_one_is_gone_for_good_and_frees_its_model(
    admin: httpx.AsyncClient, client_for: ClientFor
) -> None:
    endpoint = await new_endpoint(admin)
    kept = await new_endpoint(admin, name="kept")
    path = f"/endpoints/{endpoint['id']}"
    named = {"role": "developer", "endpoints": [endpoint["id"], kept["id"]]}
    key = (await admin.post("/api-keys", json=named)).json()
    answer = await admin.delete(f"{path}?confirm=DELETE&purge=true")
    assert answer.status_code == 409  # what lives is deleted first
    for one in (endpoint, kept):
        await admin.delete(f"/endpoints/{one['id']}?confirm=DELETE")
        await until_settled(admin, one["id"])
    held = await admin.delete("/models/m-1?confirm=DELETE")
    assert (held.status_code, "can be restored" in held.json()["error"]["message"]) == (409, True)
    assert (await admin.delete(f"{path}?purge=true")).status_code == 400  # must be meant
    assert (await admin.delete(f"{path}?confirm=DELETE&purge=true")).status_code == 202
    assert (await admin.get(f"{path}?deleted=true")).status_code == 404
    assert (await admin.post(f"{path}:restore")).status_code == 404
    keys = {one["id"]: one["endpoints"] for one in (await admin.get("/api-keys")).json()["data"]}
    assert keys[key["id"]] == [kept["id"]]
    assert (await admin.delete(f"/endpoints/{kept['id']}?confirm=DELETE&purge=true")).status_code == 202
    keys = {one["id"]: one["endpoints"] for one in (await admin.get("/api-keys")).json()["data"]}
    assert keys[key["id"]] == []  # none, which is not the same as all
    assert (await client_for(key["key"]).get("/endpoints")).json()["data"] == []
    assert (await admin.delete("/models/m-1?confirm=DELETE")).status_code == 202


async def test_what_a_serve_config_declares_is_changed_there(admin: httpx.AsyncClient, platform: Platform) -> None:
    platform.declarations.declare([spec("declared")])
    endpoint = await until_settled(admin, by_name(platform)["declared"].id)
    path = f"/endpoints/{endpoint['id']}"
    for refused in (
        admin.patch(path, json={"description": "mine"}),
        admin.post(f"{path}:stop"),
        admin.delete(f"{path}?confirm=DELETE"),
    ):
        answer = await refused
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "managed_by_serve_config")
        assert "serve config" in answer.json()["error"]["message"]
    assert (await admin.get(path)).json() == endpoint
    platform.declarations.declare([])
    await until_answer(lambda: admin.get(f"{path}?deleted=true"), lambda shown: shown["deleted_at"] is not None)
    answer = await admin.post(f"{path}:restore")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "managed_by_serve_config")
    assert "declare it there again" in answer.json()["error"]["message"]


async def test_a_declaration_that_comes_back_is_the_same_endpoint(admin: httpx.AsyncClient, platform: Platform) -> None:
    platform.declarations.declare([spec("declared"), spec("other")])
    before = await until_settled(admin, by_name(platform)["declared"].id)
    platform.declarations.declare([spec("other")])
    platform.declarations.declare([spec("declared"), spec("other")])  # while it still drains
    assert (await until_settled(admin, before["id"]))["state"] == "healthy"
    platform.declarations.declare([spec("other")])
    path = f"/endpoints/{before['id']}?deleted=true"
    await until_answer(lambda: admin.get(path), lambda shown: shown["deleted_at"] is not None)
    platform.declarations.declare([spec("declared", description="new words"), spec("other")])
    after = await until_settled(admin, before["id"])
    assert (after["state"], after["description"], after["deleted_at"]) == ("healthy", "new words", None)
    assert {endpoint.id for endpoint in by_name(platform).values()} == {before["id"], by_name(platform)["other"].id}


async def test_lists_are_filtered(admin: httpx.AsyncClient, settings: Settings) -> None:
    publish_model(settings, "m-2", "Model-2")
    one = await new_endpoint(admin, name="one")
    two = await new_endpoint(admin, name="two", model="m-2", machine_type="cpu-small")
    three = await new_endpoint(admin, name="three", model="Model-2", machine_type="gpu-1")
    await admin.post(f"/endpoints/{two['id']}:stop")
    gone = await deleted_endpoint(admin, name="gone")
    for query, found in (
        ("", [one, two, three]),
        ("state=healthy", [one, three]),
        ("state=stopped", [two]),
        ("state=abnormal", []),
        ("name=two", [two]),
        ("name=gone", []),
        ("model=m-2", [two, three]),
        ("model=Model-2", [two, three]),
        ("model=Model-9", []),
        ("machine_type=gpu-1", [three]),
        ("model=m-2&state=healthy", [three]),
        ("deleted=true", [gone]),
        ("deleted=true&model=m-1", [gone]),
        ("deleted=true&name=one", []),
    ):
        listed = (await admin.get(f"/endpoints?{query}")).json()
        assert [e["id"] for e in listed["data"]] == [e["id"] for e in found], query
        assert listed["next_page_token"] is None
    for query, param in (("state=tired", "state"), ("deleted=perhaps", "deleted"), ("name=%0A", "name")):
        assert refusal(await admin.get(f"/endpoints?{query}")) == (400, param)


@pytest.mark.parametrize("query", ["", "&model=m-1", "&deleted=true"])
async def test_filtered_lists_come_in_pages(admin: httpx.AsyncClient, query: str) -> None:
    make = deleted_endpoint if "deleted" in query else new_endpoint
    ids = [(await make(admin, name=f"e-{i}"))["id"] for i in range(3)]
    page = (await admin.get(f"/endpoints?page_size=2{query}")).json()
    assert page["next_page_token"] == page["data"][-1]["id"]
    rest = (await admin.get(f"/endpoints?page_size=2{query}&page_token={page['next_page_token']}")).json()
    assert rest["next_page_token"] is None
    assert sorted(e["id"] for e in page["data"] + rest["data"]) == sorted(ids)
    assert refusal(await admin.get(f"/endpoints?page_token=ep-9{query}")) == (400, "page_token")


async def test_an_endpoint_that_may_sleep_keeps_its_traffic_while_it_does(
    admin: httpx.AsyncClient, cluster: FakeCluster, platform: Platform
) -> None:
    endpoint = await new_endpoint(admin, scale={"min_units": 0})
    cluster.becomes(endpoint["id"], "running")  # without a unit
    platform.endpoint_loop.nudge()
    path = f"/endpoints/{endpoint['id']}"
    asleep = await until_answer(lambda: admin.get(path), lambda shown: shown["state"] == "sleeping")
    assert asleep["traffic"] == {endpoint["revision"]: 100}
    assert asleep["running_since"] == endpoint["running_since"]
    table = table_of(platform)
    assert [target.revision for target in table.routes[endpoint["id"]].targets] == [endpoint["revision"]]


async def test_the_description_of_changes_points_nowhere_else(admin: httpx.AsyncClient) -> None:
    described = (await admin.get("http://test/openapi.json")).json()
    patch = described["paths"]["/v1/endpoints/{endpoint_id}"]["patch"]["requestBody"]["content"]["application/json"]
    assert set(patch["schema"]["properties"]) == set(EndpointSpec.model_fields)
    references = re.findall(r'"\$ref": ?"#/components/schemas/([^"]+)"', json.dumps(patch))
    assert "ScaleSpec" in references
    assert set(references) <= set(described["components"]["schemas"])


def test_tombstones_survive_a_restart(open_platform: OpenPlatform) -> None:
    platform = open_platform()
    endpoint = platform.endpoints.create("default", spec("one"))
    platform.endpoints.delete("default", endpoint.id)
    platform.reconciler.step()
    platform = open_platform()
    assert platform.endpoints.find("default") == []
    (tombstone,) = platform.endpoints.find("default", deleted=True)
    assert tombstone.id == endpoint.id
    assert platform.registry.count(Endpoint) == 1


async def test_what_is_deleted_is_restored_or_purged_as_it_was_read(admin: httpx.AsyncClient) -> None:
    before = await new_endpoint(admin)
    path = f"/endpoints/{before['id']}"
    await admin.delete(f"{path}?confirm=DELETE")
    await until_answer(lambda: admin.get(f"{path}?deleted=true"), lambda shown: shown["deleted_at"] is not None)
    read = await admin.get(f"{path}?deleted=true")
    old = {"if-match": before["etag"]}  # from before it was deleted
    for late in (
        admin.post(f"{path}:restore", headers=old),
        admin.delete(f"{path}?confirm=DELETE&purge=true", headers=old),
    ):
        answer = await late
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "etag_mismatch")
    headers = {"if-match": read.headers["etag"]}
    assert (await admin.delete(f"{path}?confirm=DELETE&purge=true", headers=headers)).status_code == 202


async def test_an_unknown_machine_type_is_repeated_to_whoever_named_it(admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/endpoints", json={"name": "x", "model": "m-1", "machine_type": "h200-9"})
    message = "machine_type 'h200-9' is unknown; allowed: cpu-small, gpu-1."
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)
