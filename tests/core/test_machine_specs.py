"""Machine types as a serve config declares them, and what Serve is asked for by them."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.core.slots import Slots, slots
from app.core.specs import CPU_SMALL, GPU_1, DeploymentMode, MachineType
from app.core.unit_placement import placement_options
from app.core.waiting import Room


def machine(**fields: Any) -> MachineType:
    return MachineType.model_validate({"name": "m"} | fields)


def test_a_machine_is_used_whole_unless_told_otherwise():
    assert CPU_SMALL.modes == GPU_1.modes == (DeploymentMode(),)
    eight = machine(accelerator="H100", accelerator_count=8)
    assert eight.modes == (DeploymentMode(tensor_parallel_size=8),)
    assert MachineType.model_validate_json(eight.model_dump_json()) == eight


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"accelerator": "H100"}, "accelerator_count above 0"),
        ({"modes": [{"machines": 2, "tensor_parallel_size": 2}]}, "several machines"),
        ({"accelerator_count": 8, "modes": [{"tensor_parallel_size": 4}]}, "is 4, but a mode of 1 machines has 8"),
        ({"accelerator_count": 8, "modes": [{"machines": 2, "tensor_parallel_size": 8}]}, "has 16 places"),
        ({"modes": [{"tensor_parallel_size": 2}]}, "has 1 places"),
        ({"modes": []}, "at least 1"),
    ],
)
def test_modes_that_cannot_be(fields: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        machine(**fields)


def test_cpu_units_ask_for_what_they_always_asked():
    assert placement_options(CPU_SMALL, DeploymentMode()) == {"ray_actor_options": {"num_cpus": 0.25, "num_gpus": 0}}


def test_a_unit_on_one_machine_takes_its_cards_itself():
    one = machine(accelerator="H100", accelerator_count=4, cpus=8, resources={"rack": 1.0}, labels={"zone": "a"})
    assert placement_options(one, one.modes[0]) == {
        "ray_actor_options": {
            "num_cpus": 8,
            "num_gpus": 4,
            "accelerator_type": "H100",
            "resources": {"rack": 1.0},
            "label_selector": {"zone": "a"},
        }
    }


def test_a_unit_on_several_machines_gets_a_bundle_for_each_card():
    mode = DeploymentMode(machines=2, pipeline_parallel_size=2)
    two = machine(accelerator="L4", accelerator_count=1, cpus=2, labels={"zone": "a"}, modes=[mode.model_dump()])
    assert placement_options(two, mode) == {
        "ray_actor_options": {"num_cpus": 2, "num_gpus": 0},
        "placement_group_bundles": [
            {"GPU": 1.0, "accelerator_type:L4": 0.001, "CPU": 2},
            {"GPU": 1.0, "accelerator_type:L4": 0.001},
        ],
        "placement_group_strategy": "STRICT_SPREAD",
        "placement_group_bundle_label_selector": [{"zone": "a"}, {"zone": "a"}],
    }


def test_machines_with_several_cards_are_filled_one_after_the_other():
    mode = DeploymentMode(machines=2, tensor_parallel_size=8, pipeline_parallel_size=2)
    options = placement_options(machine(accelerator_count=8, resources={"rack": 1.0}, modes=[mode.model_dump()]), mode)
    assert options["placement_group_strategy"] == "PACK"
    assert len(options["placement_group_bundles"]) == 16
    assert sum(bundle["GPU"] for bundle in options["placement_group_bundles"]) == 16
    assert sum(bundle["rack"] for bundle in options["placement_group_bundles"]) == 2


def room(cpus: float, gpus: float = 0, free: float = 1.0, kind: str = "", **labels: str) -> Room:
    total = {"CPU": cpus, "GPU": gpus} | ({f"accelerator_type:{kind}": 1.0} if kind else {})
    return Room(total, {name: count * free for name, count in total.items()}, labels)


def test_slots_are_counted_by_what_is_rarest():
    assert slots(CPU_SMALL, DeploymentMode(), [room(2)]) == Slots(8, 8)
    assert slots(GPU_1, DeploymentMode(), [room(2), room(8, 4, free=0.5)]) == Slots(4, 2)
    assert slots(GPU_1, DeploymentMode(), [room(2)]) == Slots(0, 0)
    assert slots(GPU_1, DeploymentMode(), []) == Slots(0, 0)


def test_slots_only_on_nodes_of_that_kind():
    h100 = machine(accelerator="H100", accelerator_count=1, labels={"zone": "a"})
    nodes = [room(8, 8, kind="H100", zone="a"), room(8, 8, kind="H100", zone="b"), room(8, 8, kind="L4", zone="a")]
    assert slots(h100, h100.modes[0], nodes) == Slots(8, 8)


def test_a_unit_over_two_machines_needs_two_nodes():
    mode = DeploymentMode(machines=2, pipeline_parallel_size=2)
    two = machine(accelerator_count=1, cpus=1, modes=[mode.model_dump()])
    assert slots(two, mode, [room(8, 8)]) == Slots(0, 0)
    assert slots(two, mode, [room(8, 8), room(8, 1)]) == Slots(1, 1)
    assert slots(two, mode, [room(8, 2), room(8, 2), room(8, 2)]) == Slots(3, 3)


@pytest.mark.parametrize("quotas", [{"a.b": 1}, {"theirs": -1}, {"theirs": 1.5}, {"theirs": None}, {"": 1}])
def test_quotas_of_workspaces_are_checked(quotas: dict[str, Any]):
    assert machine(quotas={"theirs": 0, "ws-20260131093000-x1y2z": 9}).quotas["theirs"] == 0
    with pytest.raises(ValidationError, match="quotas"):
        machine(quotas=quotas)
