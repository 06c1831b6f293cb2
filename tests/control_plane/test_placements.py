"""Machine types that the platform chose before it knew what the model needs."""

import pytest

from app.control_plane.platform import Platform
from app.core.findings import Facts
from app.core.records import DEFAULT_WORKSPACE, Event, Model, Version
from app.core.specs import EndpointSpec, MachineType
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import FakeCluster, by_name, change, spec, until

GIB = 1 << 30
SMALL = MachineType(name="cpu-small", memory_bytes=4 * GIB, kv_cache_bytes=GIB, enforce_eager=True)
L4 = MachineType(name="l4", accelerator="L4", accelerator_count=1, accelerator_memory_bytes=24 * GIB)
BIG = Facts(weights_bytes=10 * GIB, parameters=5 * GIB, kv_bytes_per_token=1 << 16)


def prepare_model(platform: Platform) -> None:
    """Model-2, of which nothing is known yet."""
    model, version = platform.registry.get(Model, "m-1"), platform.registry.get(Version, "m-1:BF16")
    assert model
    assert version
    preparing = model.model_copy(update={"id": "m-2", "name": "Model-2", "state": "preparing", "size_bytes": 0})
    making = version.model_copy(update={"id": "m-2:BF16", "model_id": "m-2", "state": "creating"})
    platform.registry.put(preparing, making)


def finish_model(platform: Platform, facts: Facts) -> None:
    model, version = platform.registry.get(Model, "m-2"), platform.registry.get(Version, "m-2:BF16")
    assert model
    assert version
    change(platform, version, state="healthy")
    change(platform, model, state="healthy", facts=facts)
    platform.endpoint_loop.nudge()


def early(**fields: object) -> EndpointSpec:
    return spec("early", model="Model-2", max_model_len=2048, **fields)


def make(platform: Platform, declared: bool, wish: EndpointSpec) -> None:
    if declared:
        platform.declarations.declare([wish])
    else:
        platform.endpoints.create(DEFAULT_WORKSPACE, wish)


@pytest.mark.parametrize("declared", [False, True])
def test_what_turns_out_too_small_is_placed_again(open_platform: OpenPlatform, declared: bool) -> None:
    platform = open_platform(machine_types=[SMALL, L4])
    prepare_model(platform)
    make(platform, declared, early())
    assert by_name(platform)["early"].machine_type == "cpu-small"
    finish_model(platform, BIG)
    until(lambda: by_name(platform)["early"].state == "healthy")
    endpoint = by_name(platform)["early"]
    assert endpoint.machine_type == "l4"
    assert "not cpu-small: a unit needs 11.0 GiB" in endpoint.placement
    told = platform.registry.find(Event, subject=endpoint.id)
    assert "abnormal" not in {event.kind for event in told}
    (placed,) = [event for event in told if event.kind == "placed"]
    assert placed.message.startswith("moved from cpu-small to l4: machine_type cpu-small cannot serve this: a unit")


def test_a_type_that_was_named_stays(open_platform: OpenPlatform) -> None:
    platform = open_platform(machine_types=[SMALL, L4])
    prepare_model(platform)
    make(platform, False, early(machine_type="cpu-small"))
    finish_model(platform, BIG)
    until(lambda: by_name(platform)["early"].state == "abnormal")
    assert by_name(platform)["early"].machine_type == "cpu-small"


def test_where_nothing_fits_every_reason_is_told(open_platform: OpenPlatform) -> None:
    gpu = L4.model_copy(update={"name": "gpu-1"})
    platform = open_platform(machine_types=[SMALL, gpu])
    prepare_model(platform)
    make(platform, False, early())
    finish_model(platform, BIG.model_copy(update={"weights_bytes": 90 * GIB, "parameters": 45 * GIB}))
    until(lambda: by_name(platform)["early"].state == "abnormal")
    reason = by_name(platform)["early"].reason
    assert reason.startswith("No machine type can serve this: cpu-small: a unit needs 91.0 GiB")
    assert "; gpu-1: a unit needs 90." in reason


def test_what_has_served_is_not_moved(open_platform: OpenPlatform, cluster: FakeCluster) -> None:
    platform = open_platform(machine_types=[SMALL, L4])
    prepare_model(platform)
    make(platform, False, early())
    finish_model(platform, Facts())
    until(lambda: by_name(platform)["early"].state == "healthy")
    finish_model(platform, BIG)
    until(lambda: "cannot serve this" in by_name(platform)["early"].reason)
    assert by_name(platform)["early"].machine_type == "cpu-small"


def test_another_type_counts_against_its_quota(open_platform: OpenPlatform) -> None:
    platform = open_platform(machine_types=[SMALL, L4.model_copy(update={"quota": 1, "name": "gpu-1"})])
    platform.endpoints.create(DEFAULT_WORKSPACE, spec("full", machine_type="gpu-1"))
    prepare_model(platform)
    make(platform, False, early())
    finish_model(platform, BIG)
    until(lambda: by_name(platform)["early"].state == "abnormal")
    endpoint = by_name(platform)["early"]
    assert endpoint.machine_type == "cpu-small"
    assert "may have 1 units of gpu-1" in endpoint.reason
    platform.endpoints.stop(DEFAULT_WORKSPACE, by_name(platform)["full"].id)
    platform.endpoint_loop.nudge()
    until(lambda: by_name(platform)["early"].state == "healthy")
