"""Endpoints on a real cluster: declared, created, changed, removed."""

import pytest

from tests.cluster.conftest import CRASHING, DEMO, MODEL, SIMULATIONS, STEADY, Platform, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ADDED = {"name": "added", "model": "m-smollm2-135m-instruct"}
WITH_ADDED = {**SIMULATIONS, "added": {"word": "new ", "start_s": 4.0}}


def say(platform: Platform, name: str, max_tokens: int = 3) -> str:
    endpoint = platform.endpoint(name)
    answer = platform.openai.chat.completions.create(
        model=endpoint["id"], messages=[{"role": "user", "content": "hi"}], max_tokens=max_tokens
    )
    return answer.choices[0].message.content or ""


def test_a_deployed_config_adds_and_removes_endpoints_without_restarting_the_others(platform: Platform) -> None:
    before = {name: platform.engine_pids(name) for name in ("demo", "steady", "crashing")}
    assert all(before.values())
    platform.deploy(DEMO, STEADY, CRASHING, ADDED, simulations=WITH_ADDED)
    starting = "the first unit is starting the engine"
    until(lambda: platform.endpoint("added")["reason"] == starting, "the unit's own word")
    platform.wait_for("added", "healthy")
    assert say(platform, "added") == "new new new "
    assert {name: platform.engine_pids(name) for name in before} == before
    platform.deploy(DEMO, STEADY, CRASHING, simulations=SIMULATIONS)
    until(lambda: all(e["name"] != "added" for e in platform.http.get("/platform/v1/endpoints").json()["data"]), "gone")
    assert {name: platform.engine_pids(name) for name in before} == before


def test_a_changed_engine_setting_replaces_the_units_without_a_failed_request(platform: Platform) -> None:
    old = platform.endpoint("steady")
    old_pids = platform.engine_pids("steady")
    platform.deploy(DEMO, {**STEADY, "engine": {"max_num_seqs": 8}}, CRASHING, simulations=SIMULATIONS)

    def upgraded() -> bool:
        assert say(platform, "steady") == "word word word "
        endpoint = platform.endpoint("steady")
        return endpoint["state"] == "healthy" and endpoint["revision"] != old["revision"]

    until(upgraded, "the new revision")
    assert platform.endpoint("steady")["id"] == old["id"]
    until(lambda: not set(platform.engine_pids("steady")) & set(old_pids), "the old units to leave")


def test_a_changed_scale_range_keeps_the_units(platform: Platform) -> None:
    """Pins what Serve does with a version that we set: the same one again changes in place."""
    before = platform.engine_pids("crashing")
    old = platform.endpoint("crashing")
    wider = {**CRASHING, "scale": {"min_units": 1, "max_units": 2}}
    platform.deploy(DEMO, STEADY, wider, simulations=SIMULATIONS)
    until(lambda: platform.endpoint("crashing")["generation"] > old["generation"], "the wish")
    now = platform.wait_for("crashing", "healthy")
    assert now["revision"] == old["revision"]
    assert platform.engine_pids("crashing") == before
    platform.deploy(DEMO, STEADY, CRASHING, simulations=SIMULATIONS)
    until(lambda: platform.endpoint("crashing")["generation"] > now["generation"], "the wish")
    platform.wait_for("crashing", "healthy")
    assert platform.engine_pids("crashing") == before


def test_an_endpoint_created_over_the_api_serves_and_is_deleted(platform: Platform) -> None:
    created = platform.http.post("/platform/v1/endpoints", json={"name": "by-api", "model": "SmolLM2-135M-Instruct"})
    assert created.status_code == 202
    endpoint_id = created.json()["id"]
    platform.wait_for("by-api", "healthy")
    assert say(platform, "by-api", max_tokens=8)
    listed = {model.id for model in platform.openai.models.list()}
    assert endpoint_id in listed
    assert platform.http.delete(f"/platform/v1/endpoints/{endpoint_id}").status_code == 400
    assert platform.http.delete(f"/platform/v1/endpoints/{endpoint_id}?confirm=DELETE").status_code == 202
    until(lambda: platform.http.get(f"/platform/v1/endpoints/{endpoint_id}").status_code == 404, "gone")
    assert endpoint_id not in {model.id for model in platform.openai.models.list()}


def test_an_endpoint_that_cannot_start_says_why(platform: Platform) -> None:
    body = {
        "name": "tiny-cache",
        "model": "SmolLM2-135M-Instruct",
        "max_model_len": 8192,
        "engine": {"kv_cache_bytes": 16 << 20},
    }
    created = platform.http.post("/platform/v1/endpoints", json=body)
    assert created.status_code == 202
    failed = platform.wait_for("tiny-cache", "abnormal")
    assert "KV cache" in failed["reason"]
    assert "Traceback" not in failed["reason"]
    waiting = {"name": "no-room", "model": "SmolLM2-135M-Instruct", "machine_type": "gpu-1"}
    waiting_id = platform.http.post("/platform/v1/endpoints", json=waiting).json()["id"]
    reason = "the first unit is waiting for 1 x GPU, no node has any"
    until(lambda: platform.endpoint("no-room")["reason"] == reason, "the shortage")
    assert platform.endpoint("no-room")["state"] == "scheduling"
    platform.http.delete(f"/platform/v1/endpoints/{waiting_id}?confirm=DELETE")
    until(lambda: platform.http.get(f"/platform/v1/endpoints/{waiting_id}").status_code == 404, "gone")
    refused = platform.http.post(
        "/v1/chat/completions",
        json={"model": failed["id"], "messages": [{"role": "user", "content": "hi"}]},
    )
    assert refused.status_code == 503
    assert "KV cache" in refused.json()["error"]["message"]
    platform.http.delete(f"/platform/v1/endpoints/{failed['id']}?confirm=DELETE")


def test_a_life_over_the_api(platform: Platform) -> None:
    """Units start, stay, go and come back as the wishes say, on the real Serve."""
    body = {"name": "by-hand", "model": MODEL, "scale": {"min_units": 0}}
    created = platform.http.post("/platform/v1/endpoints", json=body).json()
    path = f"/platform/v1/endpoints/{created['id']}"
    first = platform.wait_for("by-hand", "healthy")  # also one that may sleep proves first that it can serve
    assert first["units"] == {"running": 1, "starting": 0, "target": 1, "step": 1}
    pids = platform.engine_pids("by-hand")
    assert len(pids) == 1

    changed = platform.http.patch(path, json={"description": "words", "scale": {"max_units": 2}}).json()
    assert changed["effect"] == "in_place"
    until(lambda: platform.endpoint("by-hand")["observed_generation"] == changed["generation"], "the change")
    assert platform.wait_for("by-hand", "healthy")["revision"] == first["revision"]
    assert platform.engine_pids("by-hand") == pids
    assert say(platform, "by-hand") == "hand hand hand "

    assert platform.http.post(f"{path}:stop").json()["state"] == "stopped"
    until(lambda: not platform.engine_pids("by-hand"), "its unit to leave")
    refused = platform.http.post(
        "/v1/chat/completions", json={"model": created["id"], "messages": [{"role": "user", "content": "hi"}]}
    )
    assert refused.status_code == 503
    assert "stopped" in refused.json()["error"]["message"]
    platform.http.post(f"{path}:start")
    again = platform.wait_for("by-hand", "healthy")
    assert (again["id"], again["revision"], again["units"]["running"]) == (created["id"], first["revision"], 1)
    assert say(platform, "by-hand") == "hand hand hand "

    platform.http.delete(f"{path}?confirm=DELETE")
    until(lambda: platform.http.get(path).status_code == 404, "gone")
    assert platform.http.post(f"{path}:restore").status_code == 202
    assert platform.wait_for("by-hand", "healthy")["id"] == created["id"]
    assert say(platform, "by-hand") == "hand hand hand "
    platform.http.delete(f"{path}?confirm=DELETE")
    until(lambda: platform.http.get(path).status_code == 404, "gone")
