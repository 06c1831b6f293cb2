"""What the router costs: against a bare Serve ingress with the same simulated engine, on the same Ray, in turns."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Iterable, Mapping

import psutil

from app.bench.chat_client import ChatClient, Target, connected, requests_per_s, tokens_streamed
from app.bench.stage import ENGINE_HOST, Stage
from app.local import Say
from app.local.running import first_chat
from app.settings import Settings

Samples = dict[str, list[float]]

NAME = "bare"
TOKENS_PER_S = 20
SIMULATION = {"first_token_s": 0.0, "between_tokens_s": 1 / TOKENS_PER_S}
TURNS = 60
"""Requests of each kind, of whose times the median is taken."""
CALLERS, EACH = 64, 40
"""Of plain requests, for how many there are in a second."""
STREAMS, TOKENS = 32, 100
"""At a time, and of each."""
SHORT, LONG = "hi", "word " * 3000
DIFFERENCE = "router_long_prompt_added_ms"
PROCESSES: Mapping[str, tuple[str, ...]] = {
    "ours": ("ServeReplica:router:", "ServeReplica:ep-", ENGINE_HOST),
    NAME: ("ProxyActor", f"ServeReplica:{NAME}:"),
}
"""What the processes of each are called, between the caller's socket and the end of the engine."""


def measure_router(settings: Settings, rounds: int, say: Say) -> tuple[Samples, Samples, Samples]:
    """Each round's rows, ours, the bare ingress's, and ours alone, on the platform that runs. Raises RuntimeError."""
    with contextlib.closing(Stage(settings)) as stage:
        bare = {
            "name": NAME, "route_prefix": f"/{NAME}", "import_path": "app.bench.bare_serve:build",
            "args": {"simulation": SIMULATION},
        }  # fmt: skip
        stage.deploy_simulated({"name": "chat"}, simulations={"chat": SIMULATION}, applications=[bare])
        endpoint_id = stage.wait_for("chat", "healthy")["id"]
        stage.wait_for(stage.first["name"], "sleeping")
        targets = {
            "ours": Target(f"{stage.base_url}/v1/chat/completions", stage.key, endpoint_id),
            NAME: Target(f"{stage.proxy_url}/{NAME}", stage.key, endpoint_id),
        }
        chat = first_chat(endpoint_id)
        stage.until(lambda: stage.http.post(targets[NAME].url, json=chat).status_code == 200, "the bare ingress")
        taken: dict[str, Samples] = {arm: {} for arm in targets}
        for number in range(rounds + 1):
            arms = dict(list(targets.items())[:: 1 if number % 2 else -1])
            figures = asyncio.run(_round(arms, stage.processes()))
            if number:  # the first one warms both up
                for arm, found in figures.items():
                    for name, figure in found.items():
                        taken[arm].setdefault(name, []).append(figure)
                    say(f"round {number} {arm}: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items()))
        return taken["ours"], taken[NAME], {DIFFERENCE: taken["ours"].pop(DIFFERENCE)}


async def _round(arms: Mapping[str, Target], processes: Iterable[psutil.Process]) -> dict[str, dict[str, float]]:
    living = list(processes)
    figures = await _latencies(arms)
    for arm, target in arms.items():
        plain = target.request(SHORT, 1, stream=False)
        figures[arm]["router_requests_per_s"] = await requests_per_s(target, plain, CALLERS, EACH)
    for arm, target in arms.items():
        mine = [process for process in living if _is_one_of(process, PROCESSES[arm])]
        before = _cpu_s(mine)
        made = await tokens_streamed(target, target.request(SHORT, TOKENS, stream=True), STREAMS)
        used_s = _cpu_s(mine) - before
        if made != STREAMS * TOKENS:
            raise RuntimeError(f"{arm} sent {made} of {STREAMS * TOKENS} tokens")
        figures[arm]["router_cpu_per_token_us"] = used_s / made * 1e6
    return figures


async def _latencies(arms: Mapping[str, Target]) -> dict[str, dict[str, float]]:
    """In turns, request by request: whatever else the machine does meets all alike."""
    took_ms: dict[tuple[str, str], list[float]] = {}
    async with contextlib.AsyncExitStack() as stack:
        clients = {arm: (await stack.enter_async_context(connected(target, 1)))[0] for arm, target in arms.items()}
        for _ in range(TURNS):
            for prompt in (SHORT, LONG):
                for arm, target in arms.items():
                    request = target.request(prompt, 1, stream=False)
                    took_ms.setdefault((arm, prompt), []).append(await _took_ms(clients[arm], request))
    medians = {key: statistics.median(values) for key, values in took_ms.items()}
    return {
        arm: {
            "router_request_p50_ms": medians[arm, SHORT],
            DIFFERENCE: medians[arm, LONG] - medians[arm, SHORT],
        }
        for arm in arms
    }


async def _took_ms(client: ChatClient, request: bytes) -> float:
    began = time.perf_counter()
    await client.ask(request)
    return (time.perf_counter() - began) * 1000


def _is_one_of(process: psutil.Process, marks: Iterable[str]) -> bool:
    try:
        title = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    return any(mark in title for mark in marks)


def _cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Raises psutil.NoSuchProcess: one that has ended takes its count with it."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)
