"""What a set of idle processes costs: CPU and memory."""

import contextlib
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from app import processes
from app.local import ray_folder, ray_node
from app.settings import Settings

SETTLE_S = 20.0
WINDOW_S = 30.0

_EMPTY_DEPLOYMENT = """
import ray, sys
from ray import serve
ray.init(address=sys.argv[1], log_to_driver=False)

@serve.deployment
class Empty:
    def __call__(self, request):
        return ""

serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
serve.run(Empty.bind(), name="empty", route_prefix="/")
"""


def cost(of: Iterable[psutil.Process]) -> tuple[float, int]:
    """CPU in percent of one core over a window, and proportional set size in bytes, of what lives to its end."""
    living = list(of)
    before, started = _cpu_s(living), time.monotonic()
    time.sleep(WINDOW_S)
    after, took_s = _cpu_s(living), time.monotonic() - started
    cpu_pct = 100 * sum(after[process] - before[process] for process in after) / took_s
    return cpu_pct, sum(_pss_bytes(process.pid) for process in living)


def bare_ray(settings: Settings, port: int) -> tuple[float, int]:
    """The cost of Ray with Serve and one empty deployment, as Ray's own defaults have it."""
    run_id = secrets.token_hex(8)
    variables = ray_node.environment(settings, run_id, tuning={})
    with tempfile.TemporaryDirectory(prefix=ray_folder.PREFIX) as private:
        try:
            ray = ray_node.start(settings, variables, Path(private, "ray"))
            ray.wait()
            subprocess.run(
                [sys.executable, "-c", _EMPTY_DEPLOYMENT, ray.address, str(port)],
                env=variables, stdin=subprocess.DEVNULL, check=True, timeout=180, capture_output=True,
            )  # fmt: skip
            time.sleep(SETTLE_S)
            return cost(processes.marked(run_id))
        finally:
            processes.stop(run_id, patience_s=10)


def _cpu_s(of: Iterable[psutil.Process]) -> dict[psutil.Process, float]:
    """Of those that live: a process takes its count with it when it ends."""
    used = {}
    for process in of:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used[process] = times.user + times.system
    return used


def _pss_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0
