"""What happens above an endpoint's bounds: accepted answers keep their speed, memory stays, and it is soon over."""

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil

from app.bench.stage import Stage
from app.local.running import first_chat

Samples = dict[str, list[float]]

RUNNING = 4
"""That the endpoint works on at once; as many again may wait."""
CALLERS = 40
TOKENS = 20
BETWEEN_TOKENS_S = 0.05
CALM_S = 6.0
FLOOD_S = 20.0
AGAIN_S = 0.1
"""After a refusal a caller asks again so soon, whatever it was told."""
CROWDED = {"engine": {"max_num_seqs": RUNNING}, "limits": {"max_queued": RUNNING}}
SIMULATION = {"first_token_s": 0.02, "between_tokens_s": BETWEEN_TOKENS_S}
ROUTER = "ray::ServeReplica:router"


def measure_overload(stage: Stage, calm_s: float = CALM_S, flood_s: float = FLOOD_S) -> Samples:
    """Of an endpoint with these bounds.

    `overload_tpot_ratio`: time per token of accepted answers while ten times too many ask, to that of as many as the
    endpoint takes. `overload_router_growth_bytes`: the router's memory at the flood's end against its first second.
    `overload_recovery_s`: from its end until a request is being answered as fast as before. Raises RuntimeError.
    """
    stage.deploy_simulated({"name": "crowded", **CROWDED}, simulations={"crowded": SIMULATION})
    callers = Callers(stage, stage.wait_for("crowded", "healthy")["id"])
    with callers.asking(RUNNING):
        time.sleep(calm_s)
    calm_s_per_token = statistics.median(callers.take())
    router = next(process for process in stage.processes() if _is_router(process))
    with callers.asking(CALLERS):
        time.sleep(1)
        before = router.memory_info().rss
        time.sleep(flood_s)
        growth = router.memory_info().rss - before
    ended_at = time.monotonic()
    if not callers.refused:
        raise RuntimeError("nobody was refused: that was no overload")
    flooded_s_per_token = statistics.median(callers.take())
    while callers.ask() is None or callers.take()[-1] > 1.5 * calm_s_per_token:
        time.sleep(AGAIN_S)
    return {
        "overload_tpot_ratio": [flooded_s_per_token / calm_s_per_token],
        "overload_router_growth_bytes": [float(growth)],
        "overload_recovery_s": [max(0.0, time.monotonic() - ended_at - TOKENS * calm_s_per_token)],
    }


class Callers:
    """They ask for short streamed answers, again and again."""

    def __init__(self, stage: Stage, endpoint_id: str):
        self._stage = stage
        self._body = first_chat(endpoint_id) | {"max_tokens": TOKENS, "stream": True}
        self._s_per_token: list[float] = []
        self._enough = threading.Event()
        self.refused = 0

    @contextlib.contextmanager
    def asking(self, callers: int) -> Iterator[None]:
        """So many at once, meanwhile; what is under way at the end is answered. Raises what one of them met."""
        self._enough.clear()
        with ThreadPoolExecutor(callers) as threads:
            asking = [threads.submit(self._ask_on) for _ in range(callers)]
            try:
                yield
            finally:
                self._enough.set()
        for one in asking:
            one.result()

    def _ask_on(self) -> None:
        while not self._enough.is_set():
            if self.ask() is None:
                self._enough.wait(AGAIN_S)

    def ask(self) -> float | None:
        """Seconds per token of one answer; None when it was refused. Raises RuntimeError for any other end."""
        with self._stage.http.stream("POST", "/v1/chat/completions", json=self._body) as answer:
            if answer.status_code == 429:
                self.refused += 1
                return None
            arrived = [time.monotonic() for line in answer.iter_lines() if line.startswith("data:")]
        if answer.status_code != 200 or len(arrived) <= TOKENS:
            raise RuntimeError(f"an accepted request ended with {answer.status_code} after {len(arrived)} events")
        self._s_per_token.append((arrived[TOKENS - 1] - arrived[0]) / (TOKENS - 1))
        return self._s_per_token[-1]

    def take(self) -> list[float]:
        """Seconds per token of each answer since the last time."""
        taken, self._s_per_token = self._s_per_token, []
        return taken


def _is_router(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(ROUTER in part for part in process.cmdline())
    return False
