"""The Python client, against a control plane that listens."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from app.client import ClientError, CustomModel, DeployFailed, Endpoint
from app.control_plane.args import ControlPlaneArgs
from app.control_plane.deployment import asgi
from app.control_plane.platform import Platform
from app.core import patience
from app.core.records import DEFAULT_WORKSPACE, Model
from tests.control_plane.platforms import WAIT_S, FakeCluster, publish_model, settings_in, until
from tests.deployable import make_ready, write_config


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    settings = settings_in(tmp_path / "home")
    publish_model(settings)
    opened = Platform(settings, FakeCluster(), ControlPlaneArgs(), routers_timeout_s=0)
    opened.open()
    yield opened
    opened.close()
    deadline = time.monotonic() + WAIT_S
    while any(loop.alive for loop in opened.loops) and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.fixture
def base_url(platform: Platform) -> Iterator[str]:
    """The control API below /platform, and an endpoint that says what it was asked."""

    async def chat(request: Request) -> JSONResponse:
        asked = await request.json()
        message = {"role": "assistant", "content": json.dumps(asked)}
        return JSONResponse({"choices": [{"message": message}]})

    routes = [Mount("/platform", asgi(platform)), Route("/v1/chat/completions", chat, methods=["POST"])]
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(WAIT_S)
    listening.close()


@pytest.fixture
def key(platform: Platform) -> str:
    return (platform.settings.home / "admin.key").read_text().strip()


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return write_config(tmp_path / "mine").as_uri()


def test_from_a_folder_to_an_answer_and_away(platform: Platform, base_url: str, key: str, uri: str) -> None:
    heard: list[tuple[str, str]] = []

    def hear(state: str, reason: str) -> None:
        heard.append((state, reason))
        if reason.startswith("its model is preparing"):
            make_ready(platform)

    endpoint = CustomModel(uri, base_url=base_url, api_key=key).deploy(name="mine", max_units=2, on_change=hear)
    assert endpoint.state == "healthy"
    assert heard[-1] == ("healthy", "")
    assert {state for state, _ in heard} <= {"scheduling", "healthy"}
    shown = endpoint.refresh()
    scale = shown["scale"]
    assert (shown["name"], scale["min_units"], scale["max_units"]) == ("mine", 1, 2)
    asked = json.loads(endpoint.chat("Hello", max_tokens=5))
    assert asked == {
        "max_tokens": 5,
        "model": endpoint.id,
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": False,
    }
    endpoint.delete()
    until(lambda: platform.endpoints.find(DEFAULT_WORKSPACE) == [])
    with pytest.raises(ClientError) as gone:
        endpoint.refresh()
    assert (gone.value.status, gone.value.code) == (404, "not_found")


def test_a_machine_by_its_three_fields(platform: Platform, base_url: str, key: str, uri: str) -> None:
    model = CustomModel(uri, "SmolLM2-135M-Instruct", base_url, key)
    endpoint = model.deploy("gpu-1", "NONE", 1, wait=False)
    assert endpoint.refresh()["machine_type"] == "gpu-1"
    with pytest.raises(ClientError, match="acceleratorCount is 2; gpu-1 has 1"):
        model.deploy("gpu-1", "NONE", 2, wait=False)
    for some in ({"machine_type": "gpu-1"}, {"accelerator_count": 0}, {"machine_type": "a", "accelerator_type": "b"}):
        fields: dict[str, Any] = some
        with pytest.raises(ValueError, match="or none of them"):
            model.deploy(**fields)
    assert len(platform.endpoints.find(DEFAULT_WORKSPACE)) == 1


def test_an_endpoint_that_cannot_serve_says_why(
    platform: Platform, base_url: str, key: str, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "FAILED_FOR_S", 0.0)
    endpoint = CustomModel(uri, base_url=base_url, api_key=key).deploy(wait=False)
    (model,) = [one for one in platform.models.find(DEFAULT_WORKSPACE) if one.spec]
    current = platform.registry.get(Model, model.id)
    assert current
    platform.registry.put(current.model_copy(update={"state": "failed", "reason": "nothing in it"}))
    platform.endpoint_loop.nudge()
    with pytest.raises(DeployFailed, match=rf"endpoint {endpoint.id} is abnormal: .*nothing in it"):
        endpoint.wait()


def test_waiting_has_an_end(platform: Platform, base_url: str, key: str, uri: str) -> None:
    with pytest.raises(DeployFailed, match="is still scheduling after 0 s"):
        CustomModel(uri, base_url=base_url, api_key=key).deploy(timeout_s=0)


def test_who_cannot_be_reached_or_may_not(
    base_url: str, uri: str, monkeypatch: pytest.MonkeyPatch, platform: Platform
) -> None:
    monkeypatch.delenv("MODELUNIT_API_KEY", raising=False)
    with pytest.raises(ClientError, match="there is no key"):
        CustomModel(uri, base_url=base_url).deploy()
    monkeypatch.setenv("MODELUNIT_API_KEY", "mu-wrong")
    monkeypatch.setenv("MODELUNIT_BASE_URL", base_url)
    with pytest.raises(ClientError) as refused:
        CustomModel(uri).deploy()
    assert refused.value.status == 401
    monkeypatch.setenv("MODELUNIT_BASE_URL", "http://127.0.0.1:1")
    with pytest.raises(ClientError, match="does not answer") as silent:
        CustomModel(uri).deploy()
    assert silent.value.status is None
    assert isinstance(silent.value.__cause__, Exception)
    assert not isinstance(silent.value, DeployFailed)


def record(state: str, observed: int = 1) -> httpx.Response:
    return httpx.Response(200, json={"state": state, "reason": "", "generation": 1, "observed_generation": observed})


AWAY = httpx.Response(503, json={"error": {"message": "The control plane cannot be reached."}})


def endpoint_of(*answers: httpx.Response | Exception) -> Endpoint:
    """One whose platform gives these answers."""
    rest = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        given = rest.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    return Endpoint(httpx.Client(base_url="http://platform", transport=httpx.MockTransport(answer)), "ep-1")


def test_waiting_bears_outages_and_bad_news_that_do_not_last() -> None:
    heard: list[str] = []
    lost = httpx.RemoteProtocolError("lost")
    before = (record("healthy", observed=0), record("abnormal"), record("scheduling"))
    endpoint = endpoint_of(AWAY, *before, lost, httpx.ConnectError("away"), AWAY, record("alarm"), record("healthy"))
    assert endpoint.wait(on_change=lambda state, _: heard.append(state), poll_s=0) is endpoint
    assert heard == ["healthy", "abnormal", "scheduling", "alarm", "healthy"]


def test_waiting_ends_with_what_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "OUTAGE_S", 0.0)
    with pytest.raises(ClientError, match="cannot be reached") as away:
        endpoint_of(*[AWAY] * 1000).wait(poll_s=0.001)
    assert away.value.status == 503
    with pytest.raises(ClientError, match="answered 404"):
        endpoint_of(httpx.Response(404)).wait()
    with pytest.raises(DeployFailed, match="ep-1 is still not heard of after 0 s"):
        endpoint_of(AWAY).wait(timeout_s=0)


def test_a_wish_that_is_repeated_makes_one_endpoint(platform: Platform, base_url: str, key: str, uri: str) -> None:
    model = CustomModel(uri, base_url=base_url, api_key=key)
    first, again = (model.deploy(wait=False, idempotency_key="mine") for _ in range(2))
    assert first.id == again.id
    assert model.deploy(wait=False).id != first.id
