"""What an endpoint's wish becomes for Serve: the rules by which its units come and go."""

from typing import Any

import pytest

from app.control_plane.platform import Platform
from app.core.findings import Facts
from app.core.records import DEFAULT_WORKSPACE, Model
from app.core.specs import CPU_SMALL, MachineType
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import ONE_DATABASE, FakeCluster, change, spec, until

pytestmark = ONE_DATABASE

PAIRS = CPU_SMALL.model_copy(update={"name": "pairs", "step": 2})


class KeepingCluster(FakeCluster):
    """Keeps what Serve is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def deploy(self, endpoint_id: str, revision: str, application: Any) -> None:
        self.told.append(application._bound_deployment)
        super().deploy(endpoint_id, revision, application)


@pytest.fixture
def cluster() -> KeepingCluster:
    return KeepingCluster()


@pytest.fixture
def platform(open_platform: OpenPlatform) -> Platform:
    types: list[MachineType] = [PAIRS]
    return open_platform(machine_types=types)


def wish(scale: dict[str, Any]) -> Any:
    return spec("one", machine_type="pairs", scale=scale)


def test_serve_is_told_to_scale_by_the_wish(platform: Platform, cluster: KeepingCluster) -> None:
    made = platform.endpoints.create(
        DEFAULT_WORKSPACE, wish({"min_units": 0, "max_units": 4, "tier": "low", "down_after_s": 30, "drain_s": 40})
    )
    until(lambda: cluster.told)
    config = cluster.told[0]._deployment_config
    scaling = config.autoscaling_config
    assert (scaling.min_replicas, scaling.initial_replicas, scaling.max_replicas) == (0, 2, 4)
    assert scaling.upscaling_factor == 2
    assert config.graceful_shutdown_timeout_s == 40
    assert scaling.policy.policy_kwargs == {
        "min_units": 0, "max_units": 4, "step": 2, "concurrency": 2, "tokens_per_unit": None, "idle_to_zero_s": 300,
        "down_after_s": 30, "headroom": 0.8, "endpoint_id": made.id, "revision": cluster.told[0].version,
        "first": True,
    }  # fmt: skip


def test_tokens_count_where_the_room_for_them_is_known(platform: Platform, cluster: KeepingCluster) -> None:
    model = platform.registry.get(Model, "m-1")
    assert model
    change(platform, model, facts=Facts(kv_bytes_per_token=1 << 15))
    platform.endpoints.create(DEFAULT_WORKSPACE, wish({"min_units": 2, "max_units": 4}))
    until(lambda: cluster.told)
    rules = cluster.told[0]._deployment_config.autoscaling_config.policy.policy_kwargs
    assert rules["tokens_per_unit"] == (512 << 20) / (1 << 15)


def test_another_tier_range_or_patience_restarts_no_unit(platform: Platform, cluster: KeepingCluster) -> None:
    made = platform.endpoints.create(DEFAULT_WORKSPACE, wish({"min_units": 0, "max_units": 4}))
    until(lambda: cluster.told)
    scale = {"min_units": 2, "max_units": 8, "tier": "medium", "down_after_s": 5, "drain_s": 5}
    platform.endpoints.patch(DEFAULT_WORKSPACE, made.id, {"scale": scale})
    until(lambda: len(cluster.told) == 2)
    first, second = cluster.told
    assert first.version == second.version
    assert first._replica_config.ray_actor_options == second._replica_config.ray_actor_options
    assert second._deployment_config.autoscaling_config.max_replicas == 8
    assert second._deployment_config.autoscaling_config.initial_replicas is None
    assert second._deployment_config.autoscaling_config.policy.policy_kwargs["first"] is False
