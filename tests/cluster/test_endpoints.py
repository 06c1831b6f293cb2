"""Endpoints on a real cluster: declared, created, changed, removed."""

import pytest

from tests.cluster.conftest import CRASHING, DEMO, SIMULATIONS, STEADY, Platform, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ADDED = {"name": "added", "model": "m-smollm2-135m-instruct"}
WITH_ADDED = {**SIMULATIONS, "added": {"word": "new "}}


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


def test_an_endpoint_that_cannot_start_says_why_in_the_engines_own_words(platform: Platform) -> None:
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
    refused = platform.http.post(
        "/v1/chat/completions",
        json={"model": failed["id"], "messages": [{"role": "user", "content": "hi"}]},
    )
    assert refused.status_code == 503
    assert "KV cache" in refused.json()["error"]["message"]
    platform.http.delete(f"/platform/v1/endpoints/{failed['id']}?confirm=DELETE")
