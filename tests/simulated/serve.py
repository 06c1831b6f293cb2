"""One application as Serve runs it, in virtual time: handles that report, and a controller that asks our policy.

The policy is the one that was deployed, inside Serve's own wrapper, and sees what it would see: handles and units
report every PUSH_PERIOD_S, each time what they had in hand five times in WINDOW_S, and the controller looks once a
second.
"""

import math
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve._private.common import TimeStampedValue
from ray.serve._private.config import DeploymentConfig
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingContext

from app.core.lifecycle import Seen
from app.local.ray_node import TUNING
from app.unit.autoscaling import PUSH_PERIOD_S, WINDOW_S
from app.unit.deployment import UnitSpec
from app.unit.scaling_policy import IDLE_S, TOKENS
from tests.simulated.events import Events
from tests.simulated.units import Request, Unit, forget

TICK_S = float(TUNING["RAY_SERVE_CONTROL_LOOP_INTERVAL_S"])
SAMPLES = 5
LONG_POLL_S = 0.05
"""Until a handle knows that units came or are to go."""


class BackPressure(Exception):
    """As many requests wait in a handle as may."""


class Handle:
    """One router's way to the units: requests wait in it in the order they came."""

    def __init__(self, serve: "Serve", draws: random.Random, lost: Callable[[Request], None]):
        """`lost` is given a request back whose unit was gone when it came."""
        self._serve = serve
        self._events = serve.events
        self._draws = draws
        self._lost = lost
        self._queue: deque[tuple[Request, Callable[[Request], None]]] = deque()
        self._running = 0
        self._units: list[Unit] = []
        self._phase_s = draws.uniform(0, PUSH_PERIOD_S)
        self._told: list[tuple[float, int, int]] = [(self._events.now_s, 0, 0)]
        """(moment, requests that waited, and were at units) whenever that changed."""

    @property
    def changed_at_s(self) -> float:
        return self._told[-1][0]

    @property
    def present(self) -> int:
        return len(self._queue) + self._running

    def put(self, request: Request, done: Callable[[Request], None]) -> None:
        """A request goes in. Raises BackPressure."""
        if len(self._queue) >= self._serve.max_queued:
            raise BackPressure
        self._queue.append((request, done))
        self._pump()
        self._note()
        self._serve.stir()

    def set_units(self, units: list[Unit]) -> None:
        """It has heard which units run."""
        self._units = units
        self._pump()
        self._note()

    def reported(self, now_s: float) -> list[float]:
        """The moments of the samples in its last report."""
        pushed_at_s = now_s - (now_s - self._phase_s) % PUSH_PERIOD_S
        return [pushed_at_s - number * WINDOW_S / SAMPLES for number in range(SAMPLES)]

    def told(self, at_s: float) -> tuple[int, int]:
        """Requests that waited, and those at units, at that moment."""
        for moment_s, queued, running in reversed(self._told):
            if moment_s <= at_s:
                return queued, running
        return 0, 0

    def _pump(self) -> None:
        while self._queue and (unit := self._choose()):
            request, done = self._queue.popleft()
            if unit.state == "ended":
                self._lost(request)
                continue
            self._running += 1
            unit.take(request, lambda request, done=done: self._done(request, done))

    def _choose(self) -> Unit | None:
        """The one with fewer calls of two, as Serve does; of all, where both have as many as they may."""
        if not self._units:
            return None
        most = self._serve.max_ongoing
        one, other = self._draws.choice(self._units), self._draws.choice(self._units)
        unit = min(one, other, key=_load)
        if len(unit.calls) >= most:
            unit = min(self._units, key=_load)
        return unit if len(unit.calls) < most else None

    def _done(self, request: Request, done: Callable[[Request], None]) -> None:
        self._running -= 1
        self._pump()
        self._note()
        done(request)

    def _note(self) -> None:
        now_s = self._events.now_s
        self._told.append((now_s, len(self._queue), self._running))
        forget(self._told, now_s)


def _load(unit: Unit) -> int:
    return len(unit.calls)


class Serve:
    """The application of one revision."""

    def __init__(self, events: Events, draws: random.Random, application: Any, changed: Callable[[], None]):
        """`changed` is told of whatever can be seen from outside."""
        deployment = application._bound_deployment
        config = DeploymentConfig.from_proto_bytes(deployment._deployment_config.to_proto_bytes())
        self.events = events
        self.spec = UnitSpec.model_validate(deployment.init_args[0])
        self.max_queued, self.max_ongoing = config.max_queued_requests, config.max_ongoing_requests
        self._drain_s = config.graceful_shutdown_timeout_s
        self._config = config.autoscaling_config
        self._policy = _apply_autoscaling_config(_resolve_policy_callable(self._config.policy))
        self._policy_state: dict[str, Any] = {}
        self._scaled_at_s: float | None = None
        self._draws = draws
        self._changed = changed
        self._handles: list[Handle] = []
        self._began_at_s = events.now_s
        self._ticks = False
        self._begun = 0
        self.units: list[Unit] = []
        self.target = 0
        self.targets: list[tuple[float, int]] = []
        """Each change of the target, with its moment."""
        self.running: list[tuple[float, int]] = []
        """The same of the units that run."""
        self.loads: dict[int, float] = {}
        """Minute -> the most requests that the controller saw at once in it."""
        self._aim(self._config.initial_replicas or self._config.min_replicas)
        self.stir()

    def handle(self, lost: Callable[[Request], None]) -> Handle:
        """For one more router."""
        handle = Handle(self, self._draws, lost)
        handle.set_units(self._of("running"))
        self._handles.append(handle)
        return handle

    def seen(self, endpoint_id: str, revision: str) -> Seen:
        """As the control plane sees it."""
        running, starting = self._of("running"), self._of("starting")
        return Seen(
            endpoint_id,
            revision,
            "running",
            running_units=len(running),
            phase=starting[0].phase if starting else "",
            starting_units=len(starting),
            target_units=self.target,
            starting_since=starting[0].begun_at_s if starting else None,
        )

    def stir(self) -> None:
        """Something is to do: the controller asks again from its next turn on. Asleep with nothing to do it asks too,
        to no effect, which is left out here."""
        if not self._ticks:
            self._ticks = True
            turns = math.floor((self.events.now_s - self._began_at_s) / TICK_S) + 1
            self.events.at(self._began_at_s + turns * TICK_S, self._tick)

    def _tick(self) -> None:
        now_s = self.events.now_s
        requests, queued = self._requests(now_s)
        minute = int(now_s // 60)
        self.loads[minute] = max(self.loads.get(minute, 0.0), requests)
        units = self._of("running")
        context = AutoscalingContext(
            deployment_id=None, deployment_name="unit", app_name="", current_num_replicas=len(units),
            target_num_replicas=self.target, running_replicas=[], total_num_requests=requests,
            total_queued_requests=queued, aggregated_metrics=None, raw_metrics=lambda: self._told(units, now_s),
            capacity_adjusted_min_replicas=self._config.min_replicas,
            capacity_adjusted_max_replicas=self._config.max_replicas,
            policy_state=self._policy_state.copy(), last_scale_up_time=self._scaled_at_s,
            last_scale_down_time=None, current_time=now_s, config=self._config,
        )  # fmt: skip
        number, self._policy_state = self._policy(context)
        self._aim(max(self._config.min_replicas, min(self._config.max_replicas, math.ceil(number))))
        if self.target or self.units or requests or any(handle.present for handle in self._handles):
            self.events.after(TICK_S, self._tick)
        else:
            self._ticks = False

    def _requests(self, now_s: float) -> tuple[float, float]:
        """The most that there were at once in what was reported, and the most that waited."""
        quiet_since_s = now_s - PUSH_PERIOD_S - WINDOW_S
        if all(handle.changed_at_s <= quiet_since_s for handle in self._handles):
            moments = {now_s}
        else:
            moments = {moment_s for handle in self._handles for moment_s in handle.reported(now_s)}
        reports = [[handle.told(moment_s) for handle in self._handles] for moment_s in moments]
        most = max(sum(map(sum, told)) for told in reports)
        queued = max(sum(queued for queued, _ in told) for told in reports)
        draining = sum(len(unit.calls) for unit in self._of("leaving"))  # Serve does not count those
        return max(queued, most - draining), queued

    def _told(self, units: list[Unit], now_s: float) -> dict[str, dict[str, list[TimeStampedValue]]]:
        """What units said of themselves in their last reports."""
        told: dict[str, dict[str, list[TimeStampedValue]]] = {TOKENS: {}, IDLE_S: {}}
        for unit in units:
            at_s = now_s - (now_s - unit.begun_at_s) % PUSH_PERIOD_S
            for name, value in unit.told(at_s).items():
                told[name][unit.name] = [TimeStampedValue(at_s, value)]
        return told

    def _aim(self, target: int) -> None:
        if target != self.target or not self.targets:
            if target > self.target:
                self._scaled_at_s = self.events.now_s
            self.target = target
            self.targets.append((self.events.now_s, target))
            self._changed()
        starting, running = self._of("starting"), self._of("running")
        for _ in range(target - len(starting) - len(running)):
            self._start()
        surplus = len(starting) + len(running) - target
        for unit in [*reversed(starting), *reversed(running)][: max(0, surplus)]:
            unit.leave(self._drain_s, self._ended)
        if surplus > 0:
            self._units_changed()

    def _start(self) -> None:
        unit = Unit(self.events, self._draws, self._begun, self.spec, fetched=self._begun > 0)
        self._begun += 1
        self.units.append(unit)
        unit.start(self._unit_changed)

    def _unit_changed(self, unit: Unit) -> None:
        if unit.state == "running":
            self._units_changed()
        self._changed()

    def _ended(self, unit: Unit) -> None:
        self.units.remove(unit)
        self._changed()

    def _units_changed(self) -> None:
        units = self._of("running")
        self.running.append((self.events.now_s, len(units)))
        self._changed()
        for handle in self._handles:
            self.events.after(LONG_POLL_S, handle.set_units, units)

    def _of(self, state: str) -> list[Unit]:
        return [unit for unit in self.units if unit.state == state]
