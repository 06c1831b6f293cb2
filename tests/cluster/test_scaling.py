"""Endpoints whose units come and go in steps on a real cluster: up with the load, down after it, to sleep and awake."""

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.conftest import CRASHING, DEMO, MODEL, SIMULATIONS, STEADY, Platform, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

STEPS = (2, 4)
CONCURRENCY = 2
IDLE_S = 10
LONG_ANSWER_TOKENS = 1500
START_S = 90
"""For units that start all at once on a small machine."""
MACHINES = [{"name": f"by-{step}", "step": step, "cpus": 0.01, "engine_threads": 1} for step in STEPS]


def elastic(step: int) -> dict[str, Any]:
    scale = {
        "min_units": 0, "max_units": 2 * step, "target_concurrency": CONCURRENCY, "idle_to_zero_s": IDLE_S,
        "down_after_s": 3, "drain_s": 20,
    }  # fmt: skip
    return {"name": f"elastic-{step}", "model": MODEL, "machine_type": f"by-{step}", "scale": scale}


class Targets(threading.Thread):
    """Reads an endpoint's target from Serve all the time, more often than Serve can change it."""

    def __init__(self, platform: Platform, endpoint_id: str):
        super().__init__()
        state = platform.machine.state()
        token = Path(state["ray_token_file"]).read_text().strip()
        self._url = f"{state['dashboard_url']}/api/serve/applications/"
        self._client = httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=30, trust_env=False)
        self._endpoint_id = endpoint_id
        self._stopped = threading.Event()
        self.seen: list[int] = []
        self.changed_at: list[float] = []

    def run(self) -> None:
        while not self._stopped.wait(0.2):
            with contextlib.suppress(httpx.HTTPError, KeyError):
                self._read()

    def _read(self) -> None:
        applications = self._client.get(self._url).json()["applications"].items()
        for name, application in applications:
            for deployment in application["deployments"].values() if name.startswith(self._endpoint_id) else ():
                target = deployment["target_num_replicas"]
                if self.seen[-1:] != [target]:
                    self.seen.append(target)
                    self.changed_at.append(time.monotonic())

    def wait_for(self, target: int, wait_s: float) -> float:
        """When it was first seen, of late."""
        until(lambda: self.seen[-1:] == [target], f"target {target} in {self.seen}", wait_s)
        return self.changed_at[-1]

    def stop(self) -> None:
        self._stopped.set()
        self.join(60)


@pytest.fixture(params=[STEPS[:1], pytest.param(STEPS, marks=pytest.mark.soak)], ids=["one", "at-once"])
def steps(request: pytest.FixtureRequest, platform: Platform) -> Iterator[tuple[int, ...]]:
    """An endpoint for each while the test runs."""
    steps: tuple[int, ...] = request.param
    names = {f"elastic-{step}" for step in steps}
    simulations = SIMULATIONS | {name: {"between_tokens_s": 0.05} for name in names}
    platform.deploy(DEMO, STEADY, CRASHING, *map(elastic, steps), simulations=simulations, machine_types=MACHINES)
    yield steps
    platform.deploy(DEMO, STEADY, CRASHING, simulations=SIMULATIONS)
    until(lambda: not names & {endpoint["name"] for endpoint in platform.endpoints()}, "the endpoints to go")


def stream(platform: Platform, endpoint_id: str, open_streams: contextlib.ExitStack) -> None:
    """An answer under way until the stack is closed."""
    client = httpx.Client(
        base_url=platform.base_url, headers={"authorization": f"Bearer {platform.key}"}, timeout=60, trust_env=False
    )
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": endpoint_id, "messages": messages, "max_tokens": LONG_ANSWER_TOKENS, "stream": True}
    open_streams.enter_context(client)
    answer = open_streams.enter_context(client.stream("POST", "/v1/chat/completions", json=body))
    assert answer.status_code == 200


def test_full_cycles_in_steps(platform: Platform, steps: tuple[int, ...]) -> None:
    with ThreadPoolExecutor(len(steps)) as threads:
        for cycle in [threads.submit(full_cycle, platform, step) for step in steps]:
            cycle.result()


def full_cycle(platform: Platform, step: int) -> None:
    """Up with the load, down after it, to sleep, and awake."""
    endpoint_id = until(lambda: platform.endpoint(f"elastic-{step}")["id"], "the endpoint")
    targets = Targets(platform, endpoint_id)
    targets.start()
    try:
        until(lambda: platform.endpoint(f"elastic-{step}")["units"]["running"] == step, "units", START_S)
        platform.wait_for(f"elastic-{step}", "healthy")
        with contextlib.ExitStack() as one, contextlib.ExitStack() as many:
            stream(platform, endpoint_id, one)
            for _ in range(step * CONCURRENCY):
                stream(platform, endpoint_id, many)
            targets.wait_for(2 * step, 30)
            until(lambda: platform.endpoint(f"elastic-{step}")["units"]["running"] == 2 * step, "units", START_S)
            many.close()
            targets.wait_for(step, 30)
        quiet_at = time.monotonic()
        asleep_s = targets.wait_for(0, IDLE_S + 30) - quiet_at
        platform.wait_until_asleep(f"elastic-{step}")

        with contextlib.ExitStack() as woken:
            stream(platform, endpoint_id, woken)
        targets.wait_for(step, START_S)
    finally:
        targets.stop()
    # From above 1 Ray goes to zero through 1, for one tick of its controller.
    assert [target for target in targets.seen if target != 1] == [step, 2 * step, step, 0, step]
    assert asleep_s >= IDLE_S

    def journal() -> list[tuple[int, int]]:
        rows = platform.http.get(f"/platform/v1/endpoints/{endpoint_id}/scaling").json()["data"]
        return [(row["from_units"], row["to_units"]) for row in rows]

    changes = [(step, 2 * step), (2 * step, step), (step, 0), (0, step)]
    until(lambda: journal() == changes, "the journal")
