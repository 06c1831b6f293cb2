"""What Serve's controller asks for each endpoint ten times a second: how many units?

Serve wraps every policy, and what the wrapper does to an answer is undone here; what cannot be undone `decide` knows.
Imports nothing but the standard library and app/core/scaling.py: both travel to the controller by value, so that one
that has been running since before an upgrade decides by the code of whoever deployed.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

from app.core.scaling import CLEAR, Decision, Rules, Signals, Timers, cleaned, decide, journal_row

TOKENS, IDLE_S = "tokens", "idle_s"
"""What units tell of themselves, see app/unit/work_in_hand.py."""
NAMESPACE = b"modelunit"
KEPT = 1000
"""Changes of an endpoint's target that wait in Ray's key-value store for the control plane; older ones go first."""
PUT_TIMEOUT_S = 2
MOST_AGE_S = 1.0
"""Units tell of themselves more often."""
UNASKED_S = 5.0
"""Serve asks more often than that, but not at all while requests wait for the first unit."""

log = logging.getLogger("ray.serve")


class Scaling:
    """The policy of one revision of an endpoint. A class, for Serve gives arguments to no function."""

    def __init__(self, endpoint_id: str, revision: str, first: bool, **rules: Any):
        """`first`: the revision is new; its first unit, which proves that it can serve, has as long as it takes."""
        self._journal_prefix = f"modelunit:scaling:{endpoint_id}:{revision}:"
        self._first = first
        self._rules = Rules(**rules)

    def __call__(self, ctx: Any) -> tuple[float, dict[str, Any]]:
        """Answer an AutoscalingContext: a number for Serve's wrapper, and what to bring along next time."""
        before = ctx.policy_state
        signals = signals_of(ctx)
        has_run = before.get("has_run", not self._first) or signals.units > 0
        asked_of_late = signals.at_s - before.get("decided_at_s", 0.0) <= UNASKED_S
        in_vain_since_s = before.get("in_vain_since_s") if has_run and asked_of_late else None
        timers = Timers(before.get("idle_since_s"), before.get("low_since_s"), in_vain_since_s)
        decision = decide(signals, self._rules, timers)
        after = {
            "idle_since_s": decision.timers.idle_since_s,
            "low_since_s": decision.timers.low_since_s,
            "in_vain_since_s": decision.timers.in_vain_since_s,
            "has_run": has_run,
            "decided": decision.units,
            "decided_at_s": signals.at_s,
        }
        for row in changes(signals, self._rules, timers, decision, before, ctx.last_scale_up_time):
            self._note(row)
        return for_serve(decision.units, ctx.current_num_replicas, self._rules.step), after

    def _note(self, row: Mapping[str, Any]) -> None:
        """Leave a change of target where the control plane finds it. Whatever fails here stops no scaling."""
        try:
            from ray.experimental.internal_kv import internal_kv_get_gcs_client  # noqa: PLC0415 (it is in the controller)

            store = internal_kv_get_gcs_client()
            kept = sorted(store.internal_kv_keys(self._journal_prefix.encode(), NAMESPACE, PUT_TIMEOUT_S))
            for key in kept[: max(0, len(kept) + 1 - KEPT)]:
                store.internal_kv_del(key, False, NAMESPACE, PUT_TIMEOUT_S)
            key = f"{self._journal_prefix}{int(row['at_s'] * 1000)}".encode()
            store.internal_kv_put(key, json.dumps(row).encode(), True, NAMESPACE, PUT_TIMEOUT_S)
        except Exception as error:
            log.warning("a change of the target of %s is not written down: %s", self._journal_prefix, error)


def signals_of(ctx: Any) -> Signals:
    """What an AutoscalingContext says of an endpoint."""
    told = (ctx.raw_metrics or {}) if ctx.current_num_replicas else {}
    idle = [value + _age(ctx.current_time, at_s) for at_s, value in _latest(told.get(IDLE_S))]
    return cleaned(
        Signals(
            at_s=ctx.current_time,
            running=ctx.total_running_requests,
            queued=ctx.total_queued_requests,
            tokens=sum(value for _, value in _latest(told.get(TOKENS))),
            units=ctx.current_num_replicas,
            target=ctx.target_num_replicas,
            idle_s=min(idle) if idle else None,
        )
    )


def _latest(series_by_unit: Mapping[Any, Any] | None) -> list[tuple[float, float]]:
    """(moment, value) of each unit's latest sample."""
    return [(series[-1].timestamp, series[-1].value) for series in (series_by_unit or {}).values() if series]


def _age(now_s: float, at_s: float) -> float:
    """Of a sample; never much, however far the clocks of two machines are apart."""
    return min(max(0.0, now_s - at_s), MOST_AGE_S)


def for_serve(units: int, running: int, step: int) -> float:
    """The answer that Serve's wrapper turns into `units`.

    Serve multiplies an increase over the running units by upscaling_factor, which has to be the step, for it is also
    what Serve starts with from zero; and it rounds up.
    """
    if 0 < running < units:
        return running + (units - running) / step - CLEAR
    return units


def changes(
    signals: Signals,
    rules: Rules,
    timers: Timers,
    decision: Decision,
    before: Mapping[str, Any],
    last_scale_up_s: float | None,
) -> list[dict[str, Any]]:
    """The rows of the journal that this decision adds; `before` is what the last one left.

    Nothing is written twice while Serve is on its way (it takes a step down to zero through 1). That Serve has woken an
    endpoint, which it does without asking, is seen when it asks again, and written down with the time it happened.
    """
    rows, decided = [], before.get("decided")
    if decided == 0 and decision.units and signals.target >= rules.step:
        woken_at_s = max(last_scale_up_s or 0.0, before.get("decided_at_s") or 0.0)
        caller = Signals(woken_at_s, running=0, queued=1, tokens=0, units=0, target=0)
        rows.append(journal_row(caller, rules, Timers(), decide(caller, rules, Timers())))
    if decision.units not in (signals.target, decided):
        rows.append(journal_row(signals, rules, timers, decision))
    return rows
