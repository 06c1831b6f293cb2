"""/v1/endpoints and /v1/models as callers of the control API see them."""

from datetime import datetime
from typing import Any

import httpx
import pytest

from app.control_plane.platform import Platform
from app.core.errors import Conflict
from app.core.keys import issue_key
from app.core.records import DEFAULT_WORKSPACE
from tests.control_plane.conftest import ClientFor
from tests.control_plane.platforms import ONE_DATABASE, FakeCluster, by_name, spec, table_of, until_answer

NEW = {"name": "demo", "model": "Model-1"}


async def until_state(admin: httpx.AsyncClient, endpoint_id: str, *states: str) -> Any:
    return await until_answer(
        lambda: admin.get(f"/endpoints/{endpoint_id}"),
        lambda found: found.get("state") in states or ("gone" in states and "error" in found),
    )


async def test_without_a_good_key_401(client_for: ClientFor) -> None:
    for key in (None, "mu-wrong", issue_key()):
        for path in ("/endpoints", "/models", "/api-keys"):
            answer = await client_for(key).get(path)
            assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")


async def test_an_inference_key_may_call_endpoints_only(client_for: ClientFor, platform: Platform) -> None:
    _, key = platform.keys.issue(DEFAULT_WORKSPACE, "inference", "")
    for path in ("/endpoints", "/models", "/api-keys"):
        assert (await client_for(key).get(path)).status_code == 403


async def test_a_new_endpoint_becomes_healthy(admin: httpx.AsyncClient, platform: Platform) -> None:
    answer = await admin.post("/endpoints", json=NEW)
    created = answer.json()
    assert (answer.status_code, created["state"], created["managed_by"]) == (202, "scheduling", "api")
    healthy = await until_state(admin, created["id"], "healthy")
    assert healthy["units"] == {"running": 1, "starting": 0, "target": 1, "step": 1}
    assert (healthy["machine_type"], healthy["placement"]) == ("cpu-small", "the smallest that fits")
    assert datetime.fromisoformat(healthy["running_since"]) >= datetime.fromisoformat(healthy["created_at"])
    assert healthy["updated_at"] == healthy["created_at"]
    assert {healthy[name] for name in ("auto_stop_at", "last_request_at", "deleted_at", "purge_at")} == {None}
    assert healthy["traffic"] == {healthy["revision"]: 100}
    assert healthy["generation"] == healthy["observed_generation"] == 1
    assert [e["id"] for e in (await admin.get("/endpoints")).json()["data"]] == [created["id"]]
    table = table_of(platform)
    assert table.routes[created["id"]].targets[0].revision == healthy["revision"]


async def test_an_endpoint_that_fails_says_why(
    admin: httpx.AsyncClient, cluster: FakeCluster, platform: Platform
) -> None:
    created = (await admin.post("/endpoints", json=NEW)).json()
    await until_state(admin, created["id"], "healthy")
    cluster.becomes(created["id"], "failed", "not enough memory")
    platform.endpoint_loop.nudge()
    failed = await until_state(admin, created["id"], "abnormal")
    assert failed["reason"] == "not enough memory"
    kinds = [e["kind"] for e in (await admin.get(f"/endpoints/{created['id']}/events")).json()["data"]]
    assert kinds == ["created", "scheduling", "healthy", "abnormal"]


@ONE_DATABASE
@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "nothing"}, 404, "model"),
        ({"precision": "W4A8"}, 404, "precision"),
        ({"precision": "FP1"}, 400, "precision"),
        ({"name": "1st"}, 400, "name"),
        ({"machine_type": "gpu-9"}, 400, "machine_type"),
        ({"scale": {"min_units": -1}}, 400, "scale.min_units"),
        ({"auto_stop_s": 59}, 400, "auto_stop_s"),
        ({"allowed_networks": ["10.0.0.1/8"]}, 400, "allowed_networks[0]"),
        ({"scale": {"min_units": 3, "max_units": 2}}, 400, "scale"),
        ({"engine": {"threads": "two"}}, 400, "engine.threads"),
        ({"colour": "red"}, 400, "colour"),
        ({"model": None}, 400, "model"),
    ],
)
async def test_a_wrong_wish_is_refused_by_field(
    admin: httpx.AsyncClient, change: dict[str, Any], status: int, param: str
) -> None:
    answer = await admin.post("/endpoints", json=NEW | change)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert (await admin.get("/endpoints")).json()["data"] == []


@ONE_DATABASE
@pytest.mark.parametrize("raw", [b"{", b"[]", b"", b'"x"', b'{"max_model_len": ' + b"9" * 5000 + b"}"])
async def test_what_is_no_json_object_is_refused(admin: httpx.AsyncClient, raw: bytes) -> None:
    answer = await admin.post("/endpoints", content=raw, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_a_name_is_taken_once(admin: httpx.AsyncClient) -> None:
    created = (await admin.post("/endpoints", json=NEW)).json()
    answer = await admin.post("/endpoints", json=NEW)
    assert (answer.status_code, answer.json()["error"]["param"]) == (409, "name")
    assert (await admin.delete(f"/endpoints/{created['id']}?confirm=DELETE")).status_code == 202
    assert (await admin.post("/endpoints", json=NEW)).status_code == 202  # and free again


async def test_delete_must_be_meant_and_leaves_nothing(admin: httpx.AsyncClient, cluster: FakeCluster) -> None:
    created = (await admin.post("/endpoints", json=NEW)).json()
    await until_state(admin, created["id"], "healthy")
    for confirm in ("", "?confirm=", "?confirm=delete", "?confirm=yes"):
        answer = await admin.delete(f"/endpoints/{created['id']}{confirm}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "confirm")
    answer = await admin.delete(f"/endpoints/{created['id']}?confirm=DELETE")
    assert (answer.status_code, answer.json()["state"]) == (202, "deleting")
    gone = await until_state(admin, created["id"], "gone")
    assert gone["error"]["code"] == "not_found"
    assert cluster.applications == {}


async def test_what_the_serve_config_declares_is_not_deleted_here(admin: httpx.AsyncClient, platform: Platform) -> None:
    platform.declarations.declare([spec("declared")])
    declared = by_name(platform)["declared"]
    assert (await admin.delete(f"/endpoints/{declared.id}?confirm=DELETE")).status_code == 409
    assert by_name(platform)["declared"].state != "deleting"
    with pytest.raises(Conflict, match="serve config"):
        platform.endpoints.delete(DEFAULT_WORKSPACE, declared.id)


async def test_lists_come_in_pages(admin: httpx.AsyncClient) -> None:
    ids = [(await admin.post("/endpoints", json=NEW | {"name": f"e-{i}"})).json()["id"] for i in range(5)]
    seen, token = [], ""
    for size in (2, 2, 1):
        page = (await admin.get(f"/endpoints?page_size=2{token}")).json()
        assert (page["object"], len(page["data"])) == ("list", size)
        seen += [endpoint["id"] for endpoint in page["data"]]
        token = f"&page_token={page['next_page_token']}"
    assert page["next_page_token"] is None
    assert sorted(seen) == sorted(ids)
    for wrong, param in (
        ("page_token=zzz", "page_token"),
        ("page_size=0", "page_size"),
        ("page_size=1001", "page_size"),
    ):
        answer = await admin.get(f"/endpoints?{wrong}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_models_are_what_is_published(admin: httpx.AsyncClient) -> None:
    (model,) = (await admin.get("/models")).json()["data"]
    assert (model["id"], model["name"], model["state"]) == ("m-1", "Model-1", "healthy")
    one = (await admin.get("/models/m-1")).json()
    assert (await admin.get("/models/Model-1")).json() == one
    assert (one["id"], one["name"], one["state"]) == ("m-1", "Model-1", "healthy")
    assert (await admin.get("/models/m-2")).status_code == 404


async def test_unknown_endpoints_404(admin: httpx.AsyncClient) -> None:
    for path in ("/endpoints/ep-9", "/endpoints/ep-9/events"):
        assert (await admin.get(path)).status_code == 404
    assert (await admin.delete("/endpoints/ep-9?confirm=DELETE")).status_code == 404
    assert (await admin.put("/endpoints")).status_code == 405
    assert (await admin.get("/openapi.json")).status_code == 404  # it lies at /platform/openapi.json, above /v1
