"""The policy inside Ray Serve's own wrapper: what Serve makes of its answers, and what it leaves in the journal."""

import base64
import contextlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from ray.experimental import internal_kv
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve._private.common import TimeStampedValue
from ray.serve._private.config import DeploymentConfig
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from app.core.scaling import IN_VAIN_S, Rules, decided_again
from app.unit.autoscaling import autoscaling_options
from app.unit.scaling_policy import KEPT, NAMESPACE, UNASKED_S, for_serve
from app.unit.work_in_hand import WorkInHand

TICK_S = 0.1
IDLE_S, DOWN_S = 30.0, 60.0


class Store:
    """Ray's key-value store, as the controller reaches it."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}
        self.broken = False

    def internal_kv_put(self, key: bytes, value: bytes, overwrite: bool, namespace: bytes, timeout_s: float) -> int:
        assert namespace == NAMESPACE
        if self.broken:
            raise ConnectionError
        self.held[key] = value
        return 1

    def internal_kv_keys(self, prefix: bytes, namespace: bytes, timeout_s: float) -> list[bytes]:
        return [key for key in self.held if key.startswith(prefix)]

    def internal_kv_del(self, key: bytes, by_prefix: bool, namespace: bytes, timeout_s: float) -> int:
        assert not by_prefix
        return int(self.held.pop(key, None) is not None)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(value) for _, value in sorted(self.held.items())]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    monkeypatch.setattr(internal_kv, "internal_kv_get_gcs_client", lambda: store)
    return store


def rules(step: int, low: int = 0, high: int = 4) -> Rules:
    idle_to_zero_s = None if low else IDLE_S
    return Rules(low * step, high * step, step, 4.0, 4000.0, idle_to_zero_s, down_after_s=DOWN_S)


def config_of(rules: Rules, *, first: bool = True) -> AutoscalingConfig:
    """As it comes out in the controller."""
    options = autoscaling_options(rules, "ep-1", "abc", first=first)["autoscaling_config"]
    sent = DeploymentConfig(autoscaling_config=AutoscalingConfig(**options)).to_proto_bytes()
    return DeploymentConfig.from_proto_bytes(sent).autoscaling_config


@dataclass
class Served:
    """One deployment as Serve's controller runs it: each tick asks the wrapped policy and applies the bounds."""

    rules: Rules
    start_s: float = 5.0
    first: bool = True
    now_s: float = 1e9
    running: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    tokens: list[float] = field(default_factory=list)
    idle_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = config_of(self.rules, first=self.first)
        self.policy = _apply_autoscaling_config(_resolve_policy_callable(self.config.policy))
        self.target = self.config.initial_replicas or self.rules.min_units
        self.targets = [self.target]
        self.starting: list[float] = [self.now_s + self.start_s] * self.target
        self.scaled_up_at: float | None = None

    def tick(self, requests: float = 0, queued: float = 0) -> None:
        self.now_s += TICK_S
        self.running += sum(due <= self.now_s for due in self.starting)
        self.starting = [due for due in self.starting if due > self.now_s]
        told = {"tokens": self.tokens, "idle_s": self.idle_s}
        context = AutoscalingContext(
            deployment_id=None, deployment_name="unit", app_name="ep-1.r-abc",
            current_num_replicas=self.running, target_num_replicas=self.target, running_replicas=[],
            total_num_requests=requests, total_queued_requests=queued, aggregated_metrics=None,
            raw_metrics={
                name: {str(i): [TimeStampedValue(self.now_s, value)] for i, value in enumerate(values)}
                for name, values in told.items()
            },
            capacity_adjusted_min_replicas=self.config.min_replicas,
            capacity_adjusted_max_replicas=self.config.max_replicas,
            policy_state=self.state.copy(), last_scale_up_time=self.scaled_up_at, last_scale_down_time=None,
            current_time=self.now_s, config=self.config,
        )  # fmt: skip
        number, self.state = self.policy(context)
        target = max(self.config.min_replicas, min(self.config.max_replicas, number))
        if target > self.target:
            self.scaled_up_at = self.now_s
        if target != self.target:
            self.targets.append(target)
        self.target = target
        missing = target - self.running - len(self.starting)
        self.starting += [self.now_s + self.start_s] * max(0, missing)
        while self.running + len(self.starting) > target:
            if self.starting:
                self.starting.pop()
            else:
                self.running -= 1

    def run(self, seconds: float, requests: float = 0, queued: float = 0) -> None:
        """`queued`: so many of them wait, or as many as find no room."""
        for _ in range(round(seconds / TICK_S)):
            free = self.running * 16
            self.tick(requests + queued, queued or max(0.0, requests - free))


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_full_cycle_goes_in_steps(store: Store, step: int):
    served = Served(rules(step))
    served.run(6)
    served.run(10, requests=step * 4 * 3)
    served.run(DOWN_S + 1, requests=1)
    served.run(IDLE_S + 1)
    passage = [] if step == 1 else [1]  # Ray's way down to zero, one tick long
    assert served.targets == [step, 3 * step, step, *passage, 0]
    served.run(60)
    assert served.targets[-1] == served.running == 0
    served.run(11, requests=step * 4 * 4)
    # from zero Serve starts one step without asking; it asks once the first unit runs
    assert served.targets[-2:] == [step, 4 * step]
    assert served.running == 4 * step


def woken_in_vain(step: int) -> Served:
    """An endpoint that has slept, and whose units cannot start any more."""
    served = Served(rules(step))
    served.run(6)
    served.run(IDLE_S + 1)
    assert served.target == 0
    served.start_s = math.inf
    served.run(1, queued=1)
    assert served.target == step
    return served


@pytest.mark.parametrize("step", [1, 2])
def test_units_that_do_not_come_are_given_up_once_nobody_waits(store: Store, step: int):
    served = woken_in_vain(step)
    served.run(2 * IN_VAIN_S, queued=1)
    served.run(IN_VAIN_S - 1)
    assert served.target == step
    served.run(2)
    assert served.target == 0
    last = store.rows()[-1]
    assert (last["from_units"], last["to_units"], last["rule"], last["bound"]) == (step, 0, "sleep", "in_vain")
    assert decided_again(last).units == 0
    served.start_s = 5.0
    served.run(6, queued=1)
    assert served.running == step


def test_who_comes_to_wait_starts_that_time_anew_though_serve_asks_nobody(store: Store):
    served = woken_in_vain(1)
    served.run(IN_VAIN_S - 1)
    served.run(UNASKED_S + 1, queued=1)
    served.run(IN_VAIN_S - 1)
    assert served.target == 1
    served.run(2)
    assert served.target == 0


def test_a_unit_that_comes_late_stays_for_as_long_as_any(store: Store):
    served = woken_in_vain(1)
    served.run(IN_VAIN_S - 1)
    served.starting = [served.now_s]
    served.run(IDLE_S - 1)
    assert (served.target, served.running) == (1, 1)
    served.run(2)
    assert served.target == 0


@pytest.mark.parametrize("first", [True, False])
def test_the_first_unit_of_a_revision_may_take_as_long_as_it_takes(store: Store, first: bool):
    served = Served(rules(2), start_s=math.inf, first=first)
    served.target = 2
    served.run(IN_VAIN_S + 1)
    assert served.target == (2 if first else 0)


def test_every_change_is_in_the_journal_once_and_says_what_it_came_from(store: Store):
    served = Served(rules(2))
    served.run(6)
    served.run(5.05, requests=20)
    served.run(DOWN_S + 1, requests=1)
    served.run(IDLE_S + 10)
    served.run(8, requests=20)
    rows = store.rows()
    assert [(row["from_units"], row["to_units"], row["rule"], row["bound"]) for row in rows] == [
        (2, 6, "up", "requests"),
        (6, 2, "down", "requests"),
        (2, 0, "sleep", "idle_to_zero"),
        (0, 2, "wake", "first_unit"),
        (2, 6, "up", "requests"),
    ]
    assert all(decided_again(row).units == row["to_units"] for row in rows)
    assert rows[4]["at_s"] - rows[3]["at_s"] == pytest.approx(served.start_s, abs=2 * TICK_S)
    assert all(key.decode().startswith("modelunit:scaling:ep-1:abc:1000") for key in store.held)


def test_a_target_that_stays_is_not_written_down(store: Store):
    served = Served(rules(2, low=1))
    served.run(30, requests=1)
    assert served.targets == [2]
    assert store.held == {}


def test_scaling_goes_on_when_the_journal_cannot_be_written(store: Store):
    store.broken = True
    served = Served(rules(2, low=1))
    served.run(6, requests=40)
    assert served.targets == [2, 8]


def test_the_journal_is_bounded_while_nobody_collects_it(store: Store):
    for number in range(KEPT):
        store.held[f"modelunit:scaling:ep-1:abc:{900_000_000_000 + number}".encode()] = b"{}"
    other = b"modelunit:scaling:ep-2:abc:1"
    store.held[other] = b"{}"
    served = Served(rules(2, low=1))
    served.run(6, requests=40)
    assert len(store.held) == KEPT + 1
    assert b"modelunit:scaling:ep-1:abc:900000000000" not in store.held
    assert other in store.held


def test_tokens_that_units_tell_of_call_for_more(store: Store):
    served = Served(rules(1, low=1))
    served.run(6)
    served.tokens = [9000.0]
    served.run(1, requests=1)
    assert served.targets == [1, 3]
    assert store.rows()[0]["bound"] == "tokens"


def test_a_call_too_short_for_serve_to_see_keeps_an_endpoint_awake(store: Store):
    served = Served(rules(1))
    served.run(6)
    for _ in range(10):
        served.idle_s = [3.0, 500.0]
        served.run(IDLE_S / 2)
    assert served.targets == [1]
    served.idle_s = []
    served.run(IDLE_S - 3.0)
    assert served.targets == [1, 0]


def test_units_that_are_starting_are_not_asked_for_again(store: Store):
    served = Served(rules(4, low=1), start_s=100.0)
    served.run(101)
    served.run(50, requests=17)
    assert served.targets == [4, 8]


def test_a_target_that_rules_no_longer_allow_is_brought_inside_at_once(store: Store):
    served = Served(rules(2, low=1))
    served.target = 3
    served.tick()
    assert served.target == 4


def test_its_state_is_plain_and_survives_a_new_controller(store: Store):
    served = Served(rules(2, low=1))
    served.run(6, requests=40)
    served.run(DOWN_S / 2, requests=1)
    assert json.loads(json.dumps(served.state)) == served.state
    served.state = {}  # a deploy in place, or a controller that starts anew: clocks begin again
    served.run(DOWN_S - 1, requests=1)
    assert served.target == 8
    served.run(2, requests=1)
    assert served.target == 2


def multiples() -> Iterator[tuple[int, int, int]]:
    for step in (1, 2, 3, 4, 8):
        for running in range(65):
            yield from ((units, running, step) for units in range(0, 65, step))


def test_serve_arrives_at_what_was_decided_from_every_number_of_units():
    from ray.serve.autoscaling_policy import _apply_scaling_factors

    for units, running, step in multiples():
        config = AutoscalingConfig(min_replicas=0, max_replicas=64, upscaling_factor=step)
        assert _apply_scaling_factors(for_serve(units, running, step), running, config) == units


def test_the_policy_runs_where_nothing_of_ours_can_be_imported():
    """So a controller from before an upgrade, or on a node without our code, decides by the deployer's code."""
    sent = DeploymentConfig(autoscaling_config=config_of(rules(2))).to_proto_bytes()
    assert len(sent) < 200_000  # most of it is Ray's
    program = """
import base64, json, sys, types
sys.modules["app"] = None
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve._private.config import DeploymentConfig
config = DeploymentConfig.from_proto_bytes(base64.b64decode(sys.stdin.read())).autoscaling_config
before = set(sys.modules)
policy = _resolve_policy_callable(config.policy)
context = types.SimpleNamespace(
    policy_state={}, raw_metrics={}, current_num_replicas=2, target_num_replicas=2, current_time=1e9,
    total_running_requests=8.0, total_queued_requests=0.0, last_scale_up_time=None,
)
answer, _ = policy(context)
print(json.dumps([answer, sorted(name for name in set(sys.modules) - before if "app" in name.split("."))]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], input=base64.b64encode(sent).decode(), cwd="/", check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [2, []]


def test_a_fixed_number_of_units_needs_no_policy():
    assert autoscaling_options(Rules(2, 2, 2, 4, None, None), "ep-1", "abc", first=True) == {"num_replicas": 2}


def test_an_endpoint_that_may_sleep_begins_with_one_step_and_is_then_left_alone():
    assert config_of(rules(4)).initial_replicas == 4
    assert config_of(rules(4), first=False).initial_replicas is None
    assert config_of(rules(4, low=1)).initial_replicas is None


def test_work_in_hand_counts_calls_as_they_come_and_go():
    now = 10.0
    work = WorkInHand(max_model_len=1000, clock=lambda: now)
    now = 15.0
    assert work.stats() == {"tokens": 0}  # one that was never called does not put off sleep
    with contextlib.suppress(ConnectionError), work.call(400):
        assert work.stats() == {"tokens": 100, "idle_s": 0.0}
        with work.call(1_000_000):
            assert work.stats() == {"tokens": 1100, "idle_s": 0.0}  # no prompt is longer than the model takes
            now = 16.0
            raise ConnectionError
    now = 18.0
    assert work.stats() == {"tokens": 0, "idle_s": 2.0}
