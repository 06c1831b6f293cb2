"""The whole platform on this machine: Ray, Serve, the engine host and a demo endpoint; up, and down again."""

import contextlib
import fcntl
import json
import os
import secrets
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml
from pydantic import BaseModel, ConfigDict

from app import processes
from app.core.keys import issue_key
from app.settings import Settings
from app.unit import engine_host

CONFIG = Path(__file__).parent.parent / "serve_configs" / "local.yaml"
PROMPT = "What is the capital of France?"
RAY_START_TIMEOUT_S = 120
SERVE_TIMEOUT_S = 180
ENDPOINT_TIMEOUT_S = 1800
STOP_PATIENCE_S = 10.0
OBJECT_STORE_BYTES = 128 << 20
"""Ray's shared memory; weights and tokens never go through it."""

RAY_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "1.0",  # the default of 0.1 s is too short on a busy small machine
}
"""What every Ray process of a platform needs; cluster.yaml sets the same."""

Say = Callable[[str], None]


class StartFailed(Exception):
    """The platform could not start; the message says why and what to do."""


class Running(BaseModel):
    """HOME/serve.json: how to reach a running platform."""

    model_config = ConfigDict(frozen=True)

    base_url: str
    endpoint_id: str | None
    admin_key_file: str
    dashboard_url: str
    ray_address: str
    ray_token_file: str
    pids: list[int]
    run_id: str


def state_file(settings: Settings) -> Path:
    """Where `Running` is kept."""
    return settings.home / "serve.json"


def running(settings: Settings) -> Running | None:
    """The platform of this HOME if it runs and answers."""
    try:
        found = Running.model_validate_json(state_file(settings).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    with contextlib.suppress(httpx.TransportError):
        if httpx.get(f"{found.base_url}/healthz", timeout=5, trust_env=False).status_code == 200:
            return found
    return None


def up(settings: Settings, model: Path | None, say: Say) -> tuple[Running, str]:
    """Start everything, wait until the demo endpoint is healthy, and chat with it once.

    Returns how to reach the platform, and the answer. Finds a running one and says so. Raises StartFailed; an
    interrupt or a failure before the platform answers takes down what was started.
    """
    settings.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(settings, say):
        found = running(settings)
        if found is None or model is not None:
            if found is None:
                found = _start(settings, model, say)
            else:
                say("the platform runs already; serving another model on it")
                _deploy(settings, found.dashboard_url, _prepare_model(settings, model, say))
        else:
            say(f"the platform runs already at {found.base_url}")
        client = api_client(settings, found)
        endpoint_id = _wait_for_demo(client, say)
        found = found.model_copy(
            update={"endpoint_id": endpoint_id, "pids": [p.pid for p in processes.marked(found.run_id)]}
        )
        _write(state_file(settings), found.model_dump_json(indent=2))
        return found, chat(client, endpoint_id, PROMPT)


def down(settings: Settings) -> int:
    """Stop what `up` started for this HOME; data stay. Returns how many processes there were."""
    run_file = settings.run_dir / "run_id"
    try:
        run_id = run_file.read_text().strip()
    except FileNotFoundError:
        return 0
    count = processes.stop(run_id, STOP_PATIENCE_S)
    state_file(settings).unlink(missing_ok=True)
    (settings.run_dir / engine_host.SOCKET).unlink(missing_ok=True)
    run_file.unlink(missing_ok=True)
    return count


def api_client(settings: Settings, found: Running) -> httpx.Client:
    """A client that calls as the admin."""
    key = settings.admin_key or Path(found.admin_key_file).read_text().strip()
    headers = {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=found.base_url, headers=headers, timeout=600, trust_env=False)


def chat(client: httpx.Client, endpoint_id: str, prompt: str) -> str:
    """One short answer. Raises StartFailed with the reason when there is none."""
    messages = [{"role": "user", "content": prompt}]
    body = {"model": endpoint_id, "messages": messages, "max_tokens": 64, "temperature": 0}
    answer = client.post("/v1/chat/completions", json=body)
    if answer.status_code != 200:
        raise StartFailed(f"the endpoint answered {answer.status_code}: {_reason(answer)}")
    return str(answer.json()["choices"][0]["message"]["content"])


def _start(settings: Settings, model: Path | None, say: Say) -> Running:
    down(settings)  # what an interrupted start may have left
    _check_port(settings)
    run_id = secrets.token_hex(8)
    environment = _environment(settings, run_id)
    ports = _free_ports()
    (settings.run_dir / "run_id").write_text(run_id)
    try:
        say("starting Ray and the engine host")
        started = time.monotonic()
        engine_host.start(settings.run_dir, environment, preload=True)
        ray = _start_ray(settings, environment, ports)
        config = _prepare_model(settings, model, say)
        _wait_for_ray(ray, settings)
        dashboard = f"http://127.0.0.1:{ports['dashboard-port']}"
        say(f"deploying the router and the control plane ({time.monotonic() - started:.0f} s)")
        _deploy(settings, dashboard, config)
        found = Running(
            base_url=f"http://{_url_host(settings.http_host)}:{settings.http_port}",
            endpoint_id=None,
            admin_key_file=str(settings.home / "admin.key"),
            dashboard_url=dashboard,
            ray_address=f"127.0.0.1:{ports['port']}",
            ray_token_file=environment["RAY_AUTH_TOKEN_PATH"],
            pids=[p.pid for p in processes.marked(run_id)],
            run_id=run_id,
        )
        _write(state_file(settings), found.model_dump_json(indent=2))
        _wait_for_router(found, settings)
        return found
    except BaseException:
        say("stopping what was started")
        down(settings)
        raise


def _environment(settings: Settings, run_id: str) -> dict[str, str]:
    token = settings.home / "ray.token"
    if not token.exists():
        _write(token, secrets.token_hex(32))
    if settings.admin_key is None and not (settings.home / "admin.key").exists():
        _write(settings.home / "admin.key", issue_key() + "\n")
    return {
        **os.environ,
        **RAY_ENVIRONMENT,
        processes.MARK: run_id,
        "RAY_AUTH_TOKEN_PATH": str(token),
        "MODELUNIT_HOME": str(settings.home),
        # Ray would swap 127.0.0.1 for the machine's own address, and then listen on every interface.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Ray's jobs and agents take `python` from here.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def _start_ray(settings: Settings, environment: Mapping[str, str], ports: Mapping[str, int]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--node-ip-address=127.0.0.1",
               "--dashboard-host=127.0.0.1", "--include-dashboard=true", "--disable-usage-stats",
               f"--object-store-memory={OBJECT_STORE_BYTES}",
               *(f"--{name}={port}" for name, port in ports.items())]  # fmt: skip
    settings.log_dir.mkdir(parents=True, exist_ok=True)
    with (settings.log_dir / "ray-start.log").open("wb") as log:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _wait_for_ray(ray: "subprocess.Popen[bytes]", settings: Settings) -> None:
    log = settings.log_dir / "ray-start.log"
    try:
        code = ray.wait(RAY_START_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise StartFailed(f"Ray did not start within {RAY_START_TIMEOUT_S} s; see {log}") from None
    if code != 0:
        last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise StartFailed(f"Ray did not start: {last[0]}; see {log}")


def _prepare_model(settings: Settings, model: Path | None, say: Say) -> dict[str, Any]:
    """Have the demo endpoint's model in the object store; returns the serve config that names it."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    command = [sys.executable, "-m", "app.weights.prepare", *([str(model.resolve())] if model else [])]
    environment = {**os.environ, "MODELUNIT_HOME": str(settings.home)}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    model_id = ""
    try:
        for line in process.stdout:
            kind, _, text = line.strip().partition(" ")
            if kind == "model":
                model_id = text
            elif kind == "step":
                say(text)
        if process.wait() != 0 or not model_id:
            raise StartFailed("the model could not be prepared; the lines above say why")
    finally:
        process.kill()
    plane = next(app for app in config["applications"] if app["name"] == "control_plane")
    plane["args"]["endpoints"][0]["model"] = model_id
    return config


def _deploy(settings: Settings, dashboard: str, config: dict[str, Any]) -> None:
    """What `serve deploy` does, by the same REST call, with a free port for Serve's own proxy."""
    kept = settings.home / "serve_config.yaml"
    port = yaml.safe_load(kept.read_text())["http_options"]["port"] if running(settings) else _free_port()
    config["http_options"]["port"] = port
    router = next(app for app in config["applications"] if app["name"] == "router")
    router["args"]["serve_proxy_url"] = f"http://127.0.0.1:{port}"
    _write(kept, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    token = (settings.home / "ray.token").read_text()
    deadline = time.monotonic() + SERVE_TIMEOUT_S
    while True:
        try:
            answer = httpx.put(
                f"{dashboard}/api/serve/applications/",
                json=config, headers={"authorization": f"Bearer {token}"}, timeout=60, trust_env=False,
            )  # fmt: skip
            if answer.status_code == 200:
                return
            problem = f"{answer.status_code} {answer.text[:300]}"
            if answer.status_code < 500:
                raise StartFailed(f"Serve refused the config: {problem}")
        except httpx.TransportError as error:
            problem = type(error).__name__
        if time.monotonic() > deadline:
            raise StartFailed(f"Serve did not take the config within {SERVE_TIMEOUT_S} s: {problem}")
        time.sleep(0.2)


def _wait_for_router(found: Running, settings: Settings) -> None:
    deadline = time.monotonic() + SERVE_TIMEOUT_S
    with httpx.Client(base_url=found.base_url, timeout=5, trust_env=False) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/readyz").status_code == 200:
                    return
            if time.monotonic() > deadline:
                token = Path(found.ray_token_file).read_text()
                raise StartFailed(
                    f"the router did not answer within {SERVE_TIMEOUT_S} s. {_serve_problem(found.dashboard_url, token)}"
                )
            time.sleep(0.1)


def _serve_problem(dashboard: str, token: str) -> str:
    with contextlib.suppress(httpx.HTTPError, ValueError):
        answer = httpx.get(
            f"{dashboard}/api/serve/applications/",
            headers={"authorization": f"Bearer {token}"}, timeout=10, trust_env=False,
        )  # fmt: skip
        apps = answer.json()["applications"]
        return "; ".join(f"{name}: {app['status']} {app['message'][-300:]}" for name, app in apps.items())
    return ""


def _wait_for_demo(client: httpx.Client, say: Say) -> str:
    deadline = time.monotonic() + ENDPOINT_TIMEOUT_S
    told = ""
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            answer = client.get("/platform/v1/endpoints")
            if answer.status_code == 200:
                demo = next((e for e in answer.json()["data"] if e["name"] == "demo"), None)
                if demo and demo["state"] == "healthy" and demo["generation"] == demo["observed_generation"]:
                    return str(demo["id"])
                if demo and demo["state"] in ("abnormal", "alarm"):
                    raise StartFailed(f"endpoint {demo['id']} is {demo['state']}: {demo['reason']}")
                line = f"endpoint {demo['id']} is {demo['state']}: {demo['reason']}" if demo else ""
                if line and line != told:
                    say(line)
                told = line
        time.sleep(0.2)
    raise StartFailed(f"the demo endpoint was not healthy within {ENDPOINT_TIMEOUT_S} s")


@contextlib.contextmanager
def _alone(settings: Settings, say: Say) -> Iterator[None]:
    with (settings.run_dir / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("another start of this platform is under way; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _check_port(settings: Settings) -> None:
    with socket.socket(socket.AF_INET6 if ":" in settings.http_host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.http_host, settings.http_port))
        except OSError as error:
            raise StartFailed(
                f"{settings.http_host}:{settings.http_port} cannot be used ({error.strerror}); "
                "stop what listens there or set MODELUNIT_HTTP_PORT to another port"
            ) from None


_RAY_PORTS = (
    "port",
    "dashboard-port",
    "ray-client-server-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "runtime-env-agent-port",
    "node-manager-port",
)


def _free_ports() -> dict[str, int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in _RAY_PORTS]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return dict(zip(_RAY_PORTS, (probe.getsockname()[1] for probe in sockets), strict=True))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _url_host(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)


def _write(path: Path, text: str) -> None:
    """Whole or not at all, and for its owner only."""
    partial = path.with_name(path.name + ".partial")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    partial.rename(path)


def _reason(answer: httpx.Response) -> str:
    with contextlib.suppress(ValueError, KeyError):
        return str(answer.json()["error"]["message"])
    return answer.text[:200]


def curl_line(found: Running) -> str:
    """A command that a person can paste."""
    body = json.dumps({"model": found.endpoint_id, "messages": [{"role": "user", "content": PROMPT}]})
    return (
        f'curl {found.base_url}/v1/chat/completions -H "Authorization: Bearer $(cat {shlex.quote(found.admin_key_file)})" '
        f"-H 'Content-Type: application/json' -d {shlex.quote(body)}"
    )

