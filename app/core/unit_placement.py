"""From a machine type to the options of Serve that find its nodes and set them aside."""

from typing import Any

from app.core.slots import machine_resources
from app.core.specs import DeploymentMode, MachineType


def placement_options(machine: MachineType, mode: DeploymentMode) -> dict[str, Any]:
    """What a unit's deployment asks of Serve: ray_actor_options, and more where a unit spans machines."""
    if mode.machines == 1:  # no placement group: what one actor takes is of one node anyway
        actor: dict[str, Any] = {"num_cpus": machine.cpus, "num_gpus": machine.accelerator_count}
        if machine.accelerator:
            actor["accelerator_type"] = machine.accelerator
        if machine.resources:
            actor["resources"] = dict(machine.resources)
        if machine.labels:
            actor["label_selector"] = dict(machine.labels)
        return {"ray_actor_options": actor}
    # vLLM takes one card per bundle. Its workers have no need of CPUs, and take all cards: the replica itself has none.
    per_card = {**machine_resources(machine), "GPU": 1.0}
    per_card.pop("CPU", None)
    for name, count in machine.resources.items():
        per_card[name] = count / machine.accelerator_count
    bundles = [dict(per_card) for _ in range(machine.accelerator_count * mode.machines)]
    bundles[0]["CPU"] = max(machine.cpus, 0.0)
    options: dict[str, Any] = {
        "ray_actor_options": {"num_cpus": machine.cpus, "num_gpus": 0},
        "placement_group_bundles": bundles,
        # Nodes of the type have just so many cards, so packing fills one after the other.
        "placement_group_strategy": "STRICT_SPREAD" if machine.accelerator_count == 1 else "PACK",
    }
    if machine.labels:
        options["placement_group_bundle_label_selector"] = [dict(machine.labels)] * len(bundles)
    return options
