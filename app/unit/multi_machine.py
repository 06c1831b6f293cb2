"""A unit over several machines: vLLM's workers are Ray actors in the placement group that Serve made for the unit."""

import os
from typing import Any

import ray
from ray._raylet import PlacementGroupID
from ray.util.placement_group import PlacementGroup, get_current_placement_group

from app.core.errors import EngineStartError

_AUTH_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def own_placement_group() -> str:
    """The ID of the placement group that this replica is in. Raises EngineStartError when it is in none."""
    group = get_current_placement_group()
    if group is None:
        raise EngineStartError("this unit is to span several machines, but has no placement group")
    return str(group.id.hex())


def cluster_environment() -> dict[str, str]:
    """Variables by which the engine process finds this cluster: it is no process of Ray's own."""
    auth = {name: os.environ[name] for name in _AUTH_VARIABLES if name in os.environ}
    return {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, **auth}


def placement_group(group_id: str, cards: int) -> Any:
    """For vLLM's configuration: the group by its ID, told apart without a connection to the cluster."""
    return PlacementGroup(PlacementGroupID(bytes.fromhex(group_id)), bundle_cache=[{"GPU": 1.0}] * cards)
