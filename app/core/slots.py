"""How many units of a machine type the cluster's nodes hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, inf

from app.core.specs import DeploymentMode, MachineType
from app.core.waiting import Room

_ROUNDING = 1e-4
"""Ray counts in ten-thousandths."""
_TYPE_SHARE = 0.001
"""What Ray takes of a node's accelerator_type resource for each actor."""


@dataclass(frozen=True)
class Slots:
    """Units that fit into all nodes while they are empty, and into what is free now."""

    total: int
    free: int


def machine_resources(machine: MachineType) -> dict[str, float]:
    """What a unit sets aside on each of its machines, by Ray's names."""
    needed = {"CPU": machine.cpus, "GPU": float(machine.accelerator_count), **machine.resources}
    if machine.accelerator and machine.accelerator_count:
        needed[f"accelerator_type:{machine.accelerator}"] = _TYPE_SHARE
    return {name: count for name, count in needed.items() if count > 0}


def slots(machine: MachineType, mode: DeploymentMode, nodes: Sequence[Room]) -> Slots:
    """How many units there is room for."""
    needed = machine_resources(machine)
    fitting = [node for node in nodes if all(node.labels.get(name) == value for name, value in machine.labels.items())]
    return Slots(
        total=_units(mode, [_count(needed, node.total) for node in fitting]),
        free=_units(mode, [_count(needed, node.free) for node in fitting]),
    )


def _count(needed: Mapping[str, float], there: Mapping[str, float]) -> int:
    each = (floor(there.get(name, 0.0) / count + _ROUNDING) for name, count in needed.items())
    most = min(each, default=inf)
    return 0 if most == inf else int(most)  # what takes nothing is not counted


def _units(mode: DeploymentMode, per_node: Sequence[int]) -> int:
    """Each unit takes one place on each of `mode.machines` different nodes."""
    if mode.machines == 1:
        return sum(per_node)
    enough: Callable[[int], bool] = lambda units: sum(min(n, units) for n in per_node) >= units * mode.machines  # noqa: E731
    return max((units for units in range(sum(per_node) // mode.machines + 1) if enough(units)), default=0)
