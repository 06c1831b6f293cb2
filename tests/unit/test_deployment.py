"""The Serve application of a revision, as it is built. What Serve makes of it: tests/cluster/test_endpoints.py."""

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


def test_the_version_is_ours_and_not_made_up_at_each_deploy() -> None:
    for _ in range(2):
        application = build(SPEC, version="abc", placement=PLACEMENT, min_units=1, max_units=1)
        assert application._bound_deployment.version == "abc"


def test_one_failed_start_is_enough_and_a_batch_is_never_cut_short() -> None:
    application = build(SPEC, version="abc", placement=PLACEMENT, min_units=1, max_units=1)
    config = application._bound_deployment._deployment_config
    assert config.max_constructor_retry_count == 1
    assert config.max_ongoing_requests >= SPEC.max_num_seqs
    assert config.graceful_shutdown_timeout_s >= 600


def test_a_range_of_units_scales() -> None:
    application = build(SPEC, version="abc", placement=PLACEMENT, min_units=1, max_units=3)
    scaling = application._bound_deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 3)
