"""The router on a real cluster: its surfaces, its figures on their way through the control plane, its proxies."""

import httpx
import pytest
import yaml

from tests.cluster.conftest import Platform, until
from tests.test_metrics import values

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def metrics(platform: Platform, name: str, endpoint_id: str, **labels: str) -> list[float]:
    """The values of an endpoint's series of this name."""
    wanted = {"endpoint": endpoint_id, **labels}.items()
    found = values(httpx.get(f"{platform.base_url}/metrics", trust_env=False, timeout=30).text)
    return [value for (series, key), value in found.items() if series == name and wanted <= dict(key).items()]


def test_prometheus_sees_what_every_surface_answered_and_the_units_behind(platform: Platform) -> None:
    endpoint_id = platform.endpoint("steady")["id"]

    def answered() -> float:
        return sum(metrics(platform, "modelunit_requests_total", endpoint_id, status="2xx"))

    before = answered()
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    vertex = f"/v1beta1/projects/p/locations/l/endpoints/{endpoint_id}/chat/completions"
    for path in ("/v1/chat/completions", "/api/v3/chat/completions"):
        answer = platform.http.post(path, json=chat | {"model": endpoint_id})
        assert answer.status_code == 200, answer.text
    answer = platform.http.post(vertex, json=chat)
    assert answer.json()["choices"][0]["message"]["content"] == "word word "
    assert answered() == before + 3

    def told_by_units() -> bool:
        return sum(metrics(platform, "modelunit_unit_answers_total", endpoint_id)) >= 3

    until(told_by_units, "the units' reports")


def test_serves_proxy_believes_nobody_on_this_machine_who_claims_to_be_elsewhere(platform: Platform) -> None:
    config = yaml.safe_load((platform.machine.home / "serve_config.yaml").read_text())
    url = f"http://127.0.0.1:{config['http_options']['port']}/metrics"
    answer = httpx.get(url, headers={"x-forwarded-for": "203.0.113.9"}, trust_env=False, timeout=30)
    assert answer.status_code == 200  # for the loopback; a claim that was believed would need a key


def test_a_keys_new_limits_hold_within_a_second(platform: Platform) -> None:
    issued = platform.http.post("/platform/v1/api-keys", json={"limits": {"requests_per_minute": 600}}).json()
    chat = {"model": "steady", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    headers = {"authorization": f"Bearer {issued['key']}"}
    with httpx.Client(base_url=platform.base_url, headers=headers, trust_env=False, timeout=60) as client:

        def ask() -> httpx.Response:
            return client.post("/v1/chat/completions", json=chat)

        until(lambda: ask().headers["x-ratelimit-limit-requests"] == "600", "the key to work", wait_s=1)
        change = {"limits": {"requests_per_minute": None, "tokens_per_minute": 1}}
        assert platform.http.patch(f"/platform/v1/api-keys/{issued['id']}", json=change).status_code == 200
        until(lambda: ask().headers["x-ratelimit-limit-tokens"] == "1", "the change to hold", wait_s=1)
        refused = ask()
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
        assert int(refused.headers["retry-after"]) > 60
    assert platform.http.delete(f"/platform/v1/api-keys/{issued['id']}?confirm=DELETE").status_code == 204
