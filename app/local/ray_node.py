"""Ray on this machine: a head node on loopback with token authentication, ports of its own, and our environment."""

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app import processes
from app.local import StartFailed
from app.local.files import write_private
from app.local.ports import free_port, free_ports
from app.settings import Settings

START_TIMEOUT_S = 120
OBJECT_STORE_BYTES = 128 << 20
"""Ray's shared memory; weights and tokens never go through it."""

TUNING = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "1.0",  # the default of 0.1 s is too short on a busy small machine
    "FORWARDED_ALLOW_IPS": "",  # Serve's proxy would believe whatever a client on this machine says of its address
    "RAY_worker_niceness": "0",  # at Ray's 15 the router waits behind an engine whose threads spin
    # On a small machine every background wake-up is taken from an engine that owns all cores.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "1.0",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "5000",
    "RAY_raylet_report_resources_period_milliseconds": "1000",
    "RAY_task_events_report_interval_ms": "10000",
    "RAY_memory_monitor_refresh_ms": "1000",
    "RAY_event_stats": "0",
    "RAY_DASHBOARD_AGENT_CHECK_PARENT_INTERVAL_S": "2",
    "REPORTER_UPDATE_INTERVAL_MS": "15000",
}
"""What every Ray process of a platform runs with; cluster.yaml sets the same by `modelunit env`."""

_PORTS = (
    "port",
    "dashboard-port",
    "ray-client-server-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "runtime-env-agent-port",
    "node-manager-port",
)


@dataclass(frozen=True)
class RayNode:
    """A head node that is starting."""

    process: "subprocess.Popen[bytes]"
    log: Path
    address: str
    dashboard_url: str
    environment: Mapping[str, str]

    def wait(self) -> None:
        """Until it takes commands. Raises StartFailed with Ray's last words."""
        try:
            code = self.process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise StartFailed(f"Ray did not start within {START_TIMEOUT_S} s; see {self.log}") from None
        if code != 0:
            last = self.log.read_text(errors="replace").strip().splitlines()[-1:] or ["no message"]
            raise StartFailed(f"Ray did not start: {last[0]}; see {self.log}")


def token_file(settings: Settings) -> Path:
    """What authenticates to this Ray; made when missing."""
    token = settings.home / "ray.token"
    if not token.exists():
        write_private(token, secrets.token_hex(32))
    return token


def environment(settings: Settings, run_id: str, tuning: Mapping[str, str] = TUNING) -> dict[str, str]:
    """The environment of every process of a run."""
    return {
        **settings.to_environ(),
        **tuning,
        processes.MARK: run_id,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file(settings)),
        # Ray would swap 127.0.0.1 for the machine's own address, and then listen on every interface.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "DASHBOARD_METRIC_PORT": str(free_port()),  # a fixed one by default: two platforms would share it
        # Ray's jobs and agents take `python` from here.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def start(settings: Settings, variables: Mapping[str, str], folder: Path) -> RayNode:
    """Begin to start a head node in this environment, with its files in this folder; `wait` for it."""
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head",
        "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--include-dashboard=true",
        f"--temp-dir={folder}", "--disable-usage-stats", f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--no-monitor", "--include-log-monitor=false",  # nothing here scales nodes or prints to drivers
        *(f"--{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    settings.log_dir.mkdir(parents=True, exist_ok=True)
    log = settings.log_dir / "ray-start.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    return RayNode(process, log, f"127.0.0.1:{ports['port']}", f"http://127.0.0.1:{ports['dashboard-port']}", variables)
