"""A platform whose endpoints the benchmark changes while it runs, and what it tells of them."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import psutil

from app import processes
from app.local import serve_config
from app.local.running import admin_key, first_chat, recorded
from app.settings import Settings

TIMEOUT_S = 300.0
PERIOD_S = 0.25
ENDLESS_TOKENS = 100_000
"""Of a simulated answer that is cut off long before its end."""
ENGINE_HOST = "app.unit.engine_host"
IDLE_S = 10
MACHINE = {"name": "bench", "cpus": 0.01, "engine_threads": 1}
SLEEPING = {"min_units": 0, "max_units": 1, "idle_to_zero_s": IDLE_S}


class Stage:
    """The platform of this HOME, as `modelunit up` has started it. Close it."""

    def __init__(self, settings: Settings):
        """Raises RuntimeError where nothing runs."""
        found = recorded(settings)
        if found is None:
            raise RuntimeError("no platform runs")
        self._settings = settings
        self._found = found
        self._config = serve_config.deployed(found)
        self.key = admin_key(settings, found)
        headers = {"authorization": f"Bearer {self.key}"}
        self.http = httpx.Client(base_url=found.base_url, headers=headers, timeout=TIMEOUT_S, trust_env=False)
        self.first = dict(serve_config.first_endpoint(self._config))
        """The endpoint that the platform was started with."""

    def close(self) -> None:
        """What it has deployed stays."""
        self.http.close()

    @property
    def base_url(self) -> str:
        """The router's own listener."""
        return self._found.base_url

    @property
    def proxy_url(self) -> str:
        """Serve's own proxy."""
        return f"http://127.0.0.1:{self._config['http_options']['port']}"

    def deploy(
        self, *endpoints: Mapping[str, Any], applications: Sequence[Mapping[str, Any]] = (), **args: Any
    ) -> None:
        """What `serve deploy` does of a config with these endpoints and no others; `args`: more of the control plane's.

        And with these `applications` beside our own. Returns when just these endpoints are known. Raises StartFailed,
        RuntimeError.
        """
        plane = next(app for app in self._config["applications"] if app["name"] == "control_plane")
        plane["args"] = plane["args"] | {"endpoints": [dict(endpoint) for endpoint in endpoints]} | args
        config = self._config | {"applications": [*self._config["applications"], *applications]}
        serve_config.deploy(self._settings, self._found.dashboard_url, self._found.ray_token, config)
        names = {endpoint["name"] for endpoint in endpoints}
        self.until(lambda: {endpoint["name"] for endpoint in self._endpoints()} == names, "the endpoints")

    def deploy_simulated(self, *endpoints: Mapping[str, Any], simulations: Mapping[str, Any], **more: Any) -> None:
        """Beside the first one, which may sleep: endpoints of its model, on simulated engines."""
        common = {"model": self.first["model"], "machine_type": MACHINE["name"]}
        simulated = [common | dict(endpoint) for endpoint in endpoints]
        first = self.first | {"scale": SLEEPING}
        self.deploy(first, *simulated, simulations=simulations, machine_types=[MACHINE], **more)

    def wait_for(self, name: str, *states: str) -> dict[str, Any]:
        """The endpoint once it is in one of these states and its wish is carried out. Raises RuntimeError."""

        def reached() -> dict[str, Any] | None:
            endpoint = next(endpoint for endpoint in self._endpoints() if endpoint["name"] == name)
            settled = endpoint["generation"] == endpoint["observed_generation"] or endpoint["state"] == "abnormal"
            return endpoint if settled and endpoint["state"] in states else None

        endpoint: dict[str, Any] = self.until(reached, f"{name} to be {' or '.join(states)}")
        return endpoint

    def answer_s(self, endpoint_id: str) -> float:
        """How long a short answer takes, the same that the start of a server ends with. Raises RuntimeError."""
        began = time.monotonic()
        answer = self.http.post("/v1/chat/completions", json=first_chat(endpoint_id))
        if answer.status_code != 200:
            raise RuntimeError(f"{endpoint_id} answered {answer.status_code} {answer.text[:200]}")
        return time.monotonic() - began

    @contextlib.contextmanager
    def load(self, endpoint_id: str, requests: int) -> Iterator[None]:
        """So many answers under way at once. Raises RuntimeError when one is refused."""
        body = first_chat(endpoint_id) | {"max_tokens": ENDLESS_TOKENS, "stream": True}

        def begin(_: int) -> httpx.Response:
            return self.http.send(self.http.build_request("POST", "/v1/chat/completions", json=body), stream=True)

        with contextlib.ExitStack() as stack:
            with ThreadPoolExecutor(requests) as threads:
                for answer in threads.map(begin, range(requests)):
                    stack.callback(answer.close)
                    if answer.status_code != 200:
                        raise RuntimeError(f"{endpoint_id} answered {answer.status_code} under load")
            yield

    def target_changed_at(self, endpoint_id: str, target: int, since_s: float) -> float:
        """Unix time of the first change to this target since then, as the journal of scaling has it."""
        since = datetime.fromtimestamp(since_s, UTC).isoformat()

        def found() -> float | None:
            answer = self.http.get(f"/platform/v1/endpoints/{endpoint_id}/scaling", params={"since": since})
            rows = answer.raise_for_status().json()["data"]
            return next((float(row["signals"]["at_s"]) for row in rows if row["to_units"] == target), None)

        changed_at: float = self.until(found, f"a target of {target}")
        return changed_at

    def units(self, endpoint_id: str) -> int:
        """That run."""
        return int(self.http.get(f"/platform/v1/endpoints/{endpoint_id}").raise_for_status().json()["units"]["running"])

    def processes(self) -> list[psutil.Process]:
        """All of the platform."""
        return processes.marked(self._found.run_id)

    def end_engine_host(self) -> None:
        """The next engine starts without anything imported. Only while none runs."""
        hosts = []
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if ENGINE_HOST in process.cmdline():
                    hosts.append(process)
                    process.kill()
        psutil.wait_procs(hosts, timeout=10)

    def until(self, check: Callable[[], Any], what: str) -> Any:
        """The first answer of `check` that says something. Raises RuntimeError."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError, KeyError, StopIteration):  # a control plane is being replaced
                found = check()
                if found is not None and found is not False:
                    return found
            time.sleep(PERIOD_S)
        raise RuntimeError(f"waited {TIMEOUT_S:.0f} s for {what}")

    def _endpoints(self) -> list[dict[str, Any]]:
        listed = self.http.get("/platform/v1/endpoints", params={"page_size": 1000}).raise_for_status()
        rows: list[dict[str, Any]] = listed.json()["data"]
        return rows
