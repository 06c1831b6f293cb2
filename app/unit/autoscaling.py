"""Serve's options by which the units of a revision come and go."""

from dataclasses import asdict
from typing import Any

from ray import cloudpickle

from app.core import scaling
from app.core.scaling import Rules

POLICY = "app.unit.scaling_policy:Scaling"
PUSH_PERIOD_S = 0.7
"""From one report of a handle or a unit to the controller to the next. A handle reports of an endpoint that sleeps,
too, which at 0.5 s took more than half a percent of a small machine's core."""
WINDOW_S = 1.5
"""The policy sees the most requests that there were at once for so long: a peak is not averaged away, and going down
has a patience of its own. Handles and units count five times in it."""


def autoscaling_options(rules: Rules, endpoint_id: str, revision: str, *, first: bool) -> dict[str, Any]:
    """For `deployment.options`. An endpoint that may sleep begins with one step, which proves that it can serve.

    `first`: nothing of the revision runs yet; else the number of its units is left as it is within the range.
    """
    if rules.min_units == rules.max_units:
        return {"num_replicas": rules.min_units}
    proves = first and rules.min_units == 0
    cloudpickle.register_pickle_by_value(scaling)  # Serve sees to the policy's own module only
    config: dict[str, Any] = {
        "min_replicas": rules.min_units,
        "max_replicas": rules.max_units,
        "target_ongoing_requests": rules.concurrency,
        "upscaling_factor": rules.step,
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 0.0,
        "downscale_to_zero_delay_s": 0.0,
        "metrics_interval_s": PUSH_PERIOD_S,
        "look_back_period_s": WINDOW_S,
        "aggregation_function": "max",
        "policy": {
            "policy_function": POLICY,
            "policy_kwargs": asdict(rules) | {"endpoint_id": endpoint_id, "revision": revision, "first": proves},
        },
    }
    if proves:
        config["initial_replicas"] = rules.step
    return {"autoscaling_config": config}
