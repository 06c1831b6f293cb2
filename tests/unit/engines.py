"""Engine hosts, engines and their callers."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil

from app.router.stream import Stream, TokenListener
from app.unit.engine import EngineLaunch, Simulation
from app.unit.engine_client import EngineClient

WAIT_S = 20


def hosts_of(run_dir: Path) -> list[psutil.Process]:
    """The living engine hosts of a folder, without the engines they forked."""
    wanted = ["app.unit.engine_host", str(run_dir)]
    found = [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[2:4] == wanted]
    return [p for p in found if p.ppid() not in {other.pid for other in found}]


def end_host(run_dir: Path) -> None:
    hosts = hosts_of(run_dir)
    for host in hosts:
        host.terminate()
    assert psutil.wait_procs(hosts, timeout=WAIT_S)[1] == []


def launch_of(run_dir: Path, simulation: Simulation) -> EngineLaunch:
    return EngineLaunch(
        kind="simulated", endpoint_id="ep-1", model_dir="", max_model_len=64, max_num_seqs=4, prefix_caching=True,
        enforce_eager=True, kv_cache_bytes=None, threads=1, log_file=str(run_dir.parent / "logs" / "engine.log"),
        simulation=simulation,
    )  # fmt: skip


StartEngine = Callable[..., Awaitable[EngineClient]]


class Caller:
    """A router with one request under way."""

    def __init__(self, listener: TokenListener, engine: EngineClient, **fields: object):
        self._listener = listener
        self.stream: Stream = listener.open()
        body = json.dumps({"messages": [], "stream": True} | fields).encode()
        self.call = asyncio.create_task(engine.chat(self.stream.token, listener.address, "req-1", body))

    async def read(self) -> bytes:
        return await self.stream.read(WAIT_S, "bytes")

    async def read_all(self) -> bytes:
        parts = []
        while part := await self.read():
            parts.append(part)
        return b"".join(parts)


async def until_ended(pid: int) -> None:
    """Until a process that is not our child is gone."""
    deadline = time.monotonic() + WAIT_S
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} goes on living"
        await asyncio.sleep(0.005)
