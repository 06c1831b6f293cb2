"""Long streams and new connections while what serves them is replaced."""

import copy
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.local import serve_config
from app.local.running import Running, running
from app.local.serve_config import deployed
from app.settings import Settings
from tests.cluster.callers import Callers
from tests.cluster.conftest import Platform, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

TOKENS = 1500
"""At 20 ms each; longer than any replacement takes."""
CONTENT = '"content":"word "'
LONGEST_GAP_S = 5.0
"""Between two answers: the next router imports what it needs on the cores that answer."""
REFUSED_LIMIT = 2
"""Connections that the kernel gave to a listener just before it closed. Another attempt at once finds the next one."""

Change = Callable[[dict[str, Any]], None]


def body(platform: Platform, max_tokens: int, stream: bool = False) -> dict[str, Any]:
    messages = [{"role": "user", "content": "hi"}]
    return {
        "model": platform.endpoint("steady")["id"],
        "messages": messages,
        "max_tokens": max_tokens,
        "stream": stream,
    }


class Operator:
    """Deploys changed configs, by the REST call that `serve deploy` makes."""

    def __init__(self, platform: Platform):
        self._settings = Settings(home=platform.machine.home, http_port=platform.machine.port)
        found = running(self._settings)
        assert found
        self._found: Running = found
        self._before = deployed(found)
        self._now = copy.deepcopy(self._before)

    def deploy(self, app: str, change: Change) -> None:
        """With `change` made to the args of an application, and with all changes made so far."""
        change(next(application for application in self._now["applications"] if application["name"] == app)["args"])
        self._deploy(self._now)

    def restore(self) -> None:
        """As it was before the tests, to the last replica."""
        self._deploy(self._before)
        until(self._settled, "Serve to run what it ran before", wait_s=120)

    def _deploy(self, config: dict[str, Any]) -> None:
        token = Path(self._found.ray_token_file).read_text()
        serve_config.deploy(self._settings, self._found.dashboard_url, token, config)

    def _settled(self) -> bool:
        token = Path(self._found.ray_token_file).read_text()
        url = f"{self._found.dashboard_url}/api/serve/applications/"
        apps = httpx.get(url, headers={"authorization": f"Bearer {token}"}, trust_env=False).json()["applications"]
        return all(apps[name]["status"] == "RUNNING" for name in ("router", "control_plane"))


@pytest.fixture(scope="module")
def operator(platform: Platform) -> Iterator[Operator]:
    operator = Operator(platform)
    before = platform.endpoint("steady")
    yield operator
    operator.restore()
    until(lambda: platform.endpoint("steady")["max_model_len"] == before["max_model_len"], "the wish of before")
    assert platform.wait_for("steady", "healthy")["revision"] == before["revision"]


class LongStream(threading.Thread):
    """A stream of TOKENS tokens, read to its end."""

    def __init__(self, platform: Platform):
        super().__init__()
        self._platform = platform
        self._request = body(platform, TOKENS, stream=True)
        self._flows = threading.Event()
        self.revision = ""
        self.text = ""

    def run(self) -> None:
        with self._platform.http.stream("POST", "/v1/chat/completions", json=self._request) as answer:
            self.revision = answer.headers["x-modelunit-revision"]
            for piece in answer.iter_text():
                self.text += piece
                self._flows.set()

    def begin(self) -> "LongStream":
        """Start, and return once it flows."""
        self.start()
        assert self._flows.wait(30)
        return self

    def read_to_its_end(self) -> str:
        self.join(120)
        assert not self.is_alive()
        return self.text


def assert_complete(text: str) -> None:
    assert '"error"' not in text
    assert text.count(CONTENT) == TOKENS
    assert text.endswith("data: [DONE]\n\n")


def test_a_long_stream_ends_on_the_revision_it_began_on_while_new_requests_reach_the_next(
    platform: Platform, operator: Operator
) -> None:
    old = platform.endpoint("steady")
    old_pids = platform.engine_pids("steady")
    stream = LongStream(platform).begin()
    request = body(platform, 2)
    statuses = []

    def shorten(args: dict[str, Any]) -> None:
        next(endpoint for endpoint in args["endpoints"] if endpoint["name"] == "steady")["max_model_len"] = 2048

    def reached() -> bool:
        answer = platform.http.post("/v1/chat/completions", json=request)
        statuses.append(answer.status_code)
        return answer.headers["x-modelunit-revision"] != old["revision"]

    operator.deploy("control_plane", shorten)
    until(reached, "new requests to reach the new revision")
    new = platform.wait_for("steady", "healthy")
    assert new["revision"] != old["revision"]
    assert stream.is_alive(), "the stream was too short to show anything"
    assert stream.revision == old["revision"]
    assert set(platform.engine_pids("steady")) > set(old_pids)  # the old unit waits for its stream
    assert_complete(stream.read_to_its_end())
    assert set(statuses) == {200}
    until(lambda: not set(platform.engine_pids("steady")) & set(old_pids), "the old unit to leave")


def test_a_router_is_replaced_under_a_long_stream_and_new_connections(platform: Platform, operator: Operator) -> None:
    old = platform.listening_routers()
    assert len(old) == 1
    stream = LongStream(platform).begin()
    request = body(platform, 1)
    callers = [
        Callers(lambda client: client.get("/healthz"), platform.base_url, platform.key),
        Callers(lambda client: client.post("/v1/chat/completions", json=request), platform.base_url, platform.key),
    ]
    for caller in callers:
        caller.start()
    try:
        operator.deploy("router", lambda args: args.update(between_tokens_timeout_s=119.0))
        until(lambda: (now := platform.listening_routers()) and not now & old, "the next router alone to listen")
        answered = [len(caller.answered_at) for caller in callers]
        until(
            lambda: all(len(c.answered_at) >= n + 5 for c, n in zip(callers, answered, strict=True)), "answers from it"
        )
    finally:
        for caller in callers:
            caller.stop()
    assert stream.is_alive(), "the stream was too short to show anything"
    assert_complete(stream.read_to_its_end())
    for caller in callers:
        assert len(caller.failures) <= REFUSED_LIMIT, caller.failures[:9]
        assert caller.longest_gap_s < LONGEST_GAP_S
    until(lambda: not any(process.is_running() for process in old), "the old router to leave")
