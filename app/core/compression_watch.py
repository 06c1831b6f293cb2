"""What is noticed of a compression that runs: pure decisions from what it tells of itself."""

from datetime import datetime

from app.core.job_specs import CompressionProgress
from app.core.tuning_watch import HANG_AT_LEAST_S, HANG_TIMES, HANGS, Pulse

FIRST_LAYER_S = 3600.0
"""How long the first layer may take, with the calibration before it: of how long they take nothing is known yet."""


def feel_layers(last: Pulse | None, seen: CompressionProgress, now_s: float) -> Pulse:
    """`now_s` by any clock that only goes forward."""
    return last if last is not None and last.iteration == seen.layer else Pulse(seen.layer, now_s)


def layers_hang_reason(pulse: Pulse, seen: CompressionProgress, now_s: float) -> str:
    """Why it seems to hang; empty while it does not, and after the last layer, when other things are done."""
    if seen.layer >= seen.layers:
        return ""
    limit_s = max(HANG_AT_LEAST_S, HANG_TIMES * seen.s_per_layer) if seen.s_per_layer else FIRST_LAYER_S
    if now_s - pulse.since_s <= limit_s:
        return ""
    usual = f"; one usually takes {seen.s_per_layer:.3g} s" if seen.s_per_layer else ""
    # Told by the limit, not by the time that has passed: a reason that changes each second is written each second.
    return f"{HANGS}no layer for more than {limit_s:.0f} s{usual}"


def compression_over_reason(auto_stop_s: int | None, started_at: datetime | None, now: datetime) -> str:
    """Why it is to stop by itself; empty while it is not. `started_at`: when its process began to run."""
    if auto_stop_s is None or started_at is None or (now - started_at).total_seconds() < auto_stop_s:
        return ""
    return f"it has run for {auto_stop_s} s, as auto_stop_s says"
