"""What elastic endpoints are measured by: more units, sleep, wake, refusals, overload, and what one costs that sleeps.

The wakes are those of the demo endpoint with vLLM. All else runs the simulated engine, for it is about the platform,
and an engine that works would take the machine from it.
"""

import contextlib
import math
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from app.bench import idle
from app.bench.overload import measure_overload
from app.bench.stage import IDLE_S, SLEEPING, Stage
from app.local import Say
from app.settings import Settings

Samples = dict[str, list[float]]

STEPS = 20
"""Loads that call for one unit more; the 95th percentile of 20 is the second largest."""
LOAD, CONCURRENCY = 4, 2
REFUSALS = 300
"""Of each kind."""
SLEEPERS = 6
LEFT_S = 3.0
"""Until what a unit left behind is gone."""
EARLY_S = 0.1
"""By which the clocks of a unit and of the caller may differ."""


def measure_elastic(settings: Settings, rounds: int, say: Say) -> tuple[Samples, Samples]:
    """All of it on the platform that runs: what is compared with a server's start, and what has nothing beside it."""
    with contextlib.closing(Stage(settings)) as stage:
        wakes = measure_wakes(stage, rounds, say)
        alone = {"idle_to_zero_extra_s": wakes.pop("idle_to_zero_extra_s")}
        measures: tuple[Callable[[Stage], Samples], ...] = (
            measure_steps,
            measure_refusals,
            measure_overload,
            measure_sleepers,
        )
        for measure in measures:
            figures = measure(stage)
            alone |= figures
            say(", ".join(f"{name} {values[-1]:.2f}" for name, values in figures.items()))
        return wakes, alone


def measure_wakes(stage: Stage, rounds: int, say: Say) -> Samples:
    """`wake_to_first_token_s` and `wake_standby_to_first_token_s` of each round, and `idle_to_zero_extra_s`.

    The first is from nothing at all on the node, the second with the engine host that has vLLM imported. Both end with
    the answer that a server's start ends with too. Of the last there is one figure, the worst. Raises RuntimeError.
    """
    taken: Samples = {"wake_to_first_token_s": [], "wake_standby_to_first_token_s": []}
    extra_s: list[float] = []
    stage.deploy(stage.first | {"scale": SLEEPING})
    endpoint_id = stage.wait_for(stage.first["name"], "sleeping")["id"]
    for _ in range(rounds):
        for name, begin in (("wake_to_first_token_s", stage.end_engine_host), ("wake_standby_to_first_token_s", _wait)):
            _wait()
            begin()
            taken[name].append(stage.answer_s(endpoint_id))
            extra_s.append(_slept_after_s(stage, endpoint_id))
        say("woken in " + ", ".join(f"{figures[-1]:.1f} s" for figures in taken.values()))
    return taken | {"idle_to_zero_extra_s": [max(extra_s)]}


def _slept_after_s(stage: Stage, endpoint_id: str) -> float:
    """Beyond the time that is set, from now on."""
    answered_at = time.time()
    extra_s = stage.target_changed_at(endpoint_id, 0, answered_at) - answered_at - IDLE_S
    if extra_s < -EARLY_S:
        raise RuntimeError(f"{endpoint_id} was put to sleep {-extra_s:.1f} s early")
    stage.wait_for(stage.first["name"], "sleeping")
    return extra_s


def _wait() -> None:
    time.sleep(LEFT_S)


def measure_steps(stage: Stage, steps: int = STEPS) -> Samples:
    """`scale_up_p95_s`: from the first request of a load that calls for one unit more to the new target."""
    scale = {"min_units": 1, "max_units": 2, "target_concurrency": CONCURRENCY, "down_after_s": 1, "drain_s": 5}
    stage.deploy_simulated({"name": "steps", "scale": scale}, simulations={"steps": {"between_tokens_s": 0.05}})
    endpoint_id = stage.wait_for("steps", "healthy")["id"]
    draws, took_s = random.Random(0), []
    for _ in range(steps):
        time.sleep(1 + draws.random())  # no load comes in step with the controller
        began = time.time()
        with stage.load(endpoint_id, LOAD):
            took_s.append(stage.target_changed_at(endpoint_id, 2, began) - began)
            stage.until(lambda: stage.units(endpoint_id) == 2, "two units")
        stage.target_changed_at(endpoint_id, 1, began)
        stage.until(lambda: stage.units(endpoint_id) == 1, "one unit")
    return {"scale_up_p95_s": [_percentile(took_s, 95)]}


def measure_refusals(stage: Stage, count: int = REFUSALS) -> Samples:
    """`refusal_p99_ms`: until a caller knows that a queue is full, or that there is nothing to call."""
    narrow = {"name": "narrow", "engine": {"max_num_seqs": 1}, "limits": {"max_queued": 1}}
    simulations = {"narrow": {"between_tokens_s": 0.05}, "broken": {"fail_start": "it is broken"}}
    stage.deploy_simulated(narrow, {"name": "broken"}, simulations=simulations)
    full = stage.wait_for("narrow", "healthy")["id"]
    nothing = stage.wait_for("broken", "abnormal")["id"]
    with stage.load(full, 2):
        took_ms = [_refused_ms(stage, full, 429) for _ in range(count)]
    took_ms += [_refused_ms(stage, nothing, 503) for _ in range(count)]
    return {"refusal_p99_ms": [_percentile(took_ms, 99)]}


def _refused_ms(stage: Stage, endpoint_id: str, status: int) -> float:
    body = {"model": endpoint_id, "messages": [{"role": "user", "content": "hi"}]}
    began = time.perf_counter()
    answer = stage.http.post("/v1/chat/completions", json=body)
    took_ms = (time.perf_counter() - began) * 1000
    if answer.status_code != status or not answer.headers.get("retry-after", "").isdigit():
        raise RuntimeError(f"{endpoint_id} answered {answer.status_code} and not {status} with Retry-After")
    return took_ms


def measure_sleepers(
    stage: Stage, sleepers: int = SLEEPERS, cost: Callable[..., tuple[float, int]] = idle.cost
) -> Samples:
    """`sleeping_endpoint_cpu_pct`: what each of some that have been called and sleep adds to an idle platform.

    Against the mean of before and after.
    """
    names = [f"sleeper-{number}" for number in range(sleepers)]

    def idle_pct(*endpoints: dict[str, Any]) -> float:
        stage.deploy_simulated(*endpoints, simulations={name: {} for name in names})
        for endpoint in endpoints:
            stage.answer_s(stage.wait_for(endpoint["name"], "healthy", "sleeping", "waking", "scaling")["id"])
        for name in (stage.first["name"], *(endpoint["name"] for endpoint in endpoints)):
            stage.wait_for(name, "sleeping")
        time.sleep(idle.SETTLE_S)
        return cost(stage.processes())[0]

    before = idle_pct()
    with_all = idle_pct(*({"name": name, "scale": SLEEPING} for name in names))
    after = idle_pct()
    return {"sleeping_endpoint_cpu_pct": [(with_all - statistics.mean((before, after))) / sleepers]}


def _percentile(values: list[float], pct: int) -> float:
    """The smallest that so many percent are at most as large as."""
    return sorted(values)[math.ceil(len(values) * pct / 100) - 1]
