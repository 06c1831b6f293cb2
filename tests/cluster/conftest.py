"""A real platform, started the way a person starts it, shared by all tests that need Ray.

One endpoint runs the real demo model on vLLM; the others run the simulated engine and share its weights' record.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
import yaml

from app import processes
from app.control_plane.faults import STEPS
from app.settings import Settings
from tests.cluster.callers import Callers

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 300
WAIT_S = 60

MODEL = "m-smollm2-135m-instruct"
DEMO = {"name": "demo", "model": "SmolLM2-135M-Instruct", "max_model_len": 2048}
STEADY = {"name": "steady", "model": MODEL}
CRASHING = {"name": "crashing", "model": MODEL}

VICTIM = "victim-of-"
DEATHS = [f"{step} {VICTIM}{step}" for step in STEPS]
"""The control plane dies when it comes to a step of an endpoint that is called after it, and of no other."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Machine:
    """A HOME and a port; `modelunit` runs there."""

    home: Path
    port: int

    @property
    def environment(self) -> dict[str, str]:
        environment = Settings(home=self.home, http_port=self.port).to_environ()
        return environment | {"AWS_SHARED_CREDENTIALS_FILE": str(self.aws_credentials)}

    @property
    def aws_credentials(self) -> Path:
        """Where its jobs look for credentials by name; a test may write it while the platform runs."""
        return self.home / "aws_credentials"

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "app", *arguments], cwd=ROOT, env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Returns at the end of its output: nothing that the command left running holds it open."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=START_TIMEOUT_S)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "serve.json").read_text())
        return found

    def processes(self) -> list[psutil.Process]:
        return processes.marked((self.home / "run" / "run_id").read_text().strip())

    def ray_logs(self) -> Path:
        """Where the Ray that runs here, and no other, writes what its processes say."""
        marks = ("--session-dir=", "--session_dir=")
        arguments = [one for process in self.processes() for one in process.cmdline()]
        sessions = {one.partition("=")[2] for one in arguments if one.startswith(marks)}
        assert len(sessions) == 1, sessions
        return Path(sessions.pop()) / "logs"

    def write_config(
        self,
        *endpoints: dict[str, Any],
        simulations: dict[str, Any] | None = None,
        machine_types: Sequence[dict[str, Any]] = (),
    ) -> Path:
        """A serve config like local.yaml with these endpoints, on the proxy port that is in use."""
        config = yaml.safe_load((ROOT / "serve_configs" / "local.yaml").read_text())
        deployed = self.home / "serve_config.yaml"
        if deployed.exists():
            config = yaml.safe_load(deployed.read_text())
        plane = next(app for app in config["applications"] if app["name"] == "control_plane")
        plane["args"] = {
            "endpoints": list(endpoints), "simulations": simulations or {}, "machine_types": list(machine_types),
            "die_at": DEATHS,
        }  # fmt: skip
        path = self.home / "test_config.yaml"
        path.write_text(yaml.safe_dump(config))
        return path


class Platform:
    """A running platform and its clients."""

    def __init__(self, machine: Machine):
        self.machine = machine
        state = machine.state()
        self.base_url = state["base_url"]
        self.key = Path(state["admin_key_file"]).read_text().strip()
        self.http = httpx.Client(
            base_url=self.base_url, headers={"authorization": f"Bearer {self.key}"}, timeout=120, trust_env=False
        )
        self.openai = openai.OpenAI(base_url=f"{self.base_url}/v1", api_key=self.key, max_retries=0, timeout=120)

    def endpoints(self) -> list[dict[str, Any]]:
        answer = self.http.get("/platform/v1/endpoints", params={"page_size": 1000})
        listed: list[dict[str, Any]] = answer.json()["data"]
        return listed

    def endpoint(self, name: str) -> dict[str, Any]:
        return next(endpoint for endpoint in self.endpoints() if endpoint["name"] == name)

    def wait_for(self, name: str, *states: str) -> dict[str, Any]:
        """The endpoint once it is in one of these states, its wish carried out if that is healthy."""

        def reached() -> dict[str, Any] | None:
            endpoint = self.endpoint(name)
            settled = endpoint["state"] != "healthy" or endpoint["generation"] == endpoint["observed_generation"]
            return endpoint if endpoint["state"] in states and settled else None

        return until(reached, f"{name} {states}")

    def wait_until_asleep(self, name: str) -> None:
        """Until it sleeps and nothing of it is left."""
        self.wait_for(name, "sleeping")
        until(lambda: not self.engine_pids(name), f"the engines of {name} to end")

    def events(self, name: str) -> list[str]:
        shown = self.http.get(f"/platform/v1/endpoints/{self.endpoint(name)['id']}/events", params={"page_size": 1000})
        return [event["kind"] for event in shown.json()["data"]]

    def engine_pids(self, name: str) -> list[int]:
        """The engine processes of an endpoint, by the log they hold open."""
        mark = f"engine-{self.endpoint(name)['id']}"
        found = []
        for process in self.machine.processes():
            try:
                target = os.readlink(f"/proc/{process.pid}/fd/1")
            except OSError:
                continue
            if mark in target:
                found.append(process.pid)
        return sorted(found)

    def units_started(self, endpoint_id: str) -> int:
        """How many units an endpoint has had, ever: each writes a log of its own."""
        return len(list((self.machine.home / "logs").glob(f"engine-{endpoint_id}*.log")))

    def titles(self) -> dict[psutil.Process, str]:
        """What Ray calls the platform's processes."""
        found = {}
        for process in self.machine.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                found[process] = " ".join(process.cmdline())
        return found

    def listening_routers(self) -> set[psutil.Process]:
        """The processes of the platform that take connections on its port."""
        found = set()
        for process in self.machine.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                listening = [c for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
                if any(connection.laddr.port == self.machine.port for connection in listening):
                    found.add(process)
        return found

    def deploy(
        self,
        *endpoints: dict[str, Any],
        simulations: dict[str, Any],
        machine_types: Sequence[dict[str, Any]] = (),
    ) -> None:
        """What `serve deploy` does of a config with these endpoints, by the same REST call."""
        config = yaml.safe_load(
            self.machine.write_config(*endpoints, simulations=simulations, machine_types=machine_types).read_text()
        )
        state = self.machine.state()
        headers = {"authorization": f"Bearer {Path(state['ray_token_file']).read_text().strip()}"}
        url = f"{state['dashboard_url']}/api/serve/applications/"
        httpx.put(url, json=config, headers=headers, timeout=120, trust_env=False).raise_for_status()

    def serve_deploy(self, *endpoints: dict[str, Any], simulations: dict[str, Any]) -> None:
        """`serve deploy` of such a config, as an operator runs it."""
        state = self.machine.state()
        environment = {
            **self.machine.environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": state["ray_token_file"],
        }  # fmt: skip
        config = self.machine.write_config(*endpoints, simulations=simulations)
        command = [sys.executable, "-m", "ray.serve.scripts", "deploy", "-a", state["dashboard_url"], str(config)]
        subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, timeout=120)


def until(check: Callable[[], Any], what: str, wait_s: float = WAIT_S) -> Any:
    """The first true answer of `check`."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            if found := check():
                return found
        except (httpx.HTTPError, KeyError, StopIteration):
            pass  # the control plane is being replaced
        assert time.monotonic() < deadline, f"waited {wait_s} s for {what}"
        time.sleep(0.1)


SIMULATIONS: dict[str, Any] = {
    "steady": {"between_tokens_s": 0.02},
    "crashing": {"between_tokens_s": 0.02},
    "by-hand": {"word": "hand "},
    **{f"{VICTIM}{step}": {"word": "saved "} for step in (*STEPS, "nothing")},
}


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    machine = Machine(tmp_path_factory.mktemp("platform"), free_port())
    config = machine.write_config(DEMO, STEADY, CRASHING, simulations=SIMULATIONS)
    try:
        started = machine.run("up", "--config", str(config))
        assert started.returncode == 0, started.stderr
        assert "Paris" in started.stdout
        running = Platform(machine)
        running.wait_for("steady", "healthy")
        running.wait_for("crashing", "healthy")
        yield running
    finally:
        machine.run("down")


@pytest.fixture
def callers(platform: Platform) -> Iterator[Callers]:
    """They chat with `steady` as long as the test lasts."""
    messages = [{"role": "user", "content": "hi"}]
    request = {"model": platform.endpoint("steady")["id"], "messages": messages, "max_tokens": 2}
    callers = Callers(lambda client: client.post("/v1/chat/completions", json=request), platform.base_url, platform.key)
    callers.start()
    yield callers
    callers.stop()
