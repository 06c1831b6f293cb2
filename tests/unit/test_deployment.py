"""The Serve application of a revision, as it is built. What Serve makes of it: tests/cluster/test_endpoints.py."""

from typing import Any

from app.core.scaling import Rules
from app.unit.deployment import UnitSpec, build

SPEC = UnitSpec(
    endpoint_id="ep-1",
    weights="models/m/BF16/",
    digest="d",
    max_model_len=64,
    max_num_seqs=4,
    prefix_caching=True,
    enforce_eager=True,
    kv_cache_bytes=None,
    threads=None,
)
PLACEMENT = {"ray_actor_options": {"num_cpus": 0.25}}


def config_of(min_units: int = 1, max_units: int = 1, **options: Any) -> Any:
    rules = Rules(min_units, max_units, step=1, concurrency=4, tokens_per_unit=None, idle_to_zero_s=None)
    application = build(SPEC, version="abc", placement=PLACEMENT, rules=rules, **options)
    assert application._bound_deployment.version == "abc"  # ours, and not made up at each deploy
    return application._bound_deployment._deployment_config


def test_one_failed_start_is_enough_and_a_batch_is_never_cut_short() -> None:
    config = config_of()
    assert config.max_constructor_retry_count == 1
    assert config.max_ongoing_requests >= SPEC.max_num_seqs
    assert config.graceful_shutdown_timeout_s >= 600


def test_units_that_go_have_as_long_as_the_endpoint_says() -> None:
    assert config_of(drain_s=7).graceful_shutdown_timeout_s == 7


def test_a_range_of_units_scales_by_our_policy() -> None:
    config = config_of(1, 3)
    scaling = config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 3)
    assert scaling.policy.policy_kwargs["endpoint_id"] == "ep-1"
    assert scaling.policy.policy_kwargs["revision"] == "abc"
