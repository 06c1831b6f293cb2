"""Endpoints on a real cluster: declared, created, changed, removed."""

import pytest

from tests.cluster.conftest import CRASHING, DEMO, SIMULATIONS, STEADY, Platform, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ADDED = {"name": "added", "model": "m-smollm2-135m-instruct"}
WITH_ADDED = {**SIMULATIONS, "added": {"word": "new ", "start_s": 4.0}}


def say(platform: Platform, name: str, max_tokens: int = 3) -> str:
    endpoint = platform.endpoint(name)
    answer = platform.openai.chat.completions.create(
        model=endpoint["id"], messages=[{"role": "user", "content": "hi"}], max_tokens=max_tokens
    )
    return answer.choices[0].message.content or ""


def test_a_deployed_config_adds_changes_and_removes_endpoints_without_restarting_others(platform: Platform) -> None:
    """Also pins what Serve does with a version that we set: the same one again changes in place."""
    before = {name: platform.engine_pids(name) for name in ("demo", "steady", "crashing")}
    assert all(before.values())
    old = platform.endpoint("crashing")
    wider = {**CRASHING, "scale": {"min_units": 1, "max_units": 2}}
    platform.serve_deploy(DEMO, STEADY, wider, ADDED, simulations=WITH_ADDED)
    starting = "the first unit is starting the engine"
    until(lambda: platform.endpoint("added")["reason"] == starting, "the unit's own word")
    platform.wait_for("added", "healthy")
    assert say(platform, "added") == "new new new "
    until(lambda: platform.endpoint("crashing")["generation"] > old["generation"], "the wider range")
    now = platform.wait_for("crashing", "healthy")
    assert (now["revision"], now["scale"]["max_units"]) == (old["revision"], 2)
    assert {name: platform.engine_pids(name) for name in before} == before

    platform.deploy(DEMO, STEADY, CRASHING, simulations=SIMULATIONS)
    until(lambda: all(endpoint["name"] != "added" for endpoint in platform.endpoints()), "gone")
    until(lambda: platform.endpoint("crashing")["generation"] > now["generation"], "the range of before")
    assert platform.wait_for("crashing", "healthy")["revision"] == old["revision"]
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
    body = {"name": "by-hand", "model": "SmolLM2-135M-Instruct", "scale": {"min_units": 0}}
    answer = platform.http.post("/platform/v1/endpoints", json=body)
    assert answer.status_code == 202
    created = answer.json()
    path = f"/platform/v1/endpoints/{created['id']}"
    first = platform.wait_for("by-hand", "healthy")  # also one that may sleep proves first that it can serve
    assert first["units"] == {"running": 1, "starting": 0, "target": 1, "step": 1}
    pids = platform.engine_pids("by-hand")
    assert len(pids) == 1
    assert created["id"] in {model.id for model in platform.openai.models.list()}

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

    assert platform.http.delete(path).status_code == 400
    assert platform.http.delete(f"{path}?confirm=DELETE").status_code == 202
    until(lambda: platform.http.get(path).status_code == 404, "gone")
    assert created["id"] not in {model.id for model in platform.openai.models.list()}
    assert platform.http.post(f"{path}:restore").status_code == 202
    assert platform.wait_for("by-hand", "healthy")["id"] == created["id"]
    assert say(platform, "by-hand") == "hand hand hand "
    platform.http.delete(f"{path}?confirm=DELETE")
    until(lambda: platform.http.get(path).status_code == 404, "gone")
