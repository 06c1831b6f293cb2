"""Deploying as Vertex AI has it (S4): weights, a machine, an endpoint, in one wish."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from app.core.errors import InvalidField
from app.core.specs import MachineType

NO_CARD = ("ACCELERATOR_TYPE_UNSPECIFIED", "NONE")
"""What acceleratorType may say of machine types without cards, or with cards of any kind."""
_VENDOR = re.compile(r"^(?:NVIDIA[_-])?(?:TESLA[_-])?", re.IGNORECASE)
_UNFIT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class MachineWish:
    """The three fields that name a machine."""

    machine_type: str
    accelerator_type: str
    accelerator_count: int


@dataclass(frozen=True)
class DeployWish:
    """What to deploy and how; None for what the platform is to find out or choose."""

    uri: str | None
    """A folder of weights; None: `model` is there already."""
    model: str | None
    """The model's ID or name, or what it is to be called."""
    base_model: str | None
    name: str | None
    """The endpoint's."""
    machine: MachineWish | None
    min_units: int
    max_units: int
    allowed_networks: tuple[str, ...]


def machine_wish(
    machine_type: str | None, accelerator_type: str | None, accelerator_count: int | None
) -> MachineWish | None:
    """The three fields together; None when none is given. Raises InvalidField when only some are."""
    given = {"machineType": machine_type, "acceleratorType": accelerator_type, "acceleratorCount": accelerator_count}
    missing = [field for field, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if machine_type is None or accelerator_type is None or accelerator_count is None:
        raise InvalidField(
            f"machine_spec lacks {' and '.join(missing)}: give machineType, acceleratorType and acceleratorCount, or "
            "none of them, and the platform chooses.",
            f"machine_spec.{missing[0]}",
        )
    return MachineWish(machine_type, accelerator_type, accelerator_count)


def wished_machine(wish: MachineWish, machines: Mapping[str, MachineType]) -> MachineType:
    """The machine type that the three fields name. Raises InvalidField when there is none, or it has other cards."""
    machine = machines.get(wish.machine_type)
    if machine is None:
        allowed = ", ".join(sorted(machines))
        told = f"machineType {wish.machine_type!r} is unknown; allowed: {allowed}."
        raise InvalidField(told, "machine_spec.machineType")
    own = machine.accelerator or NO_CARD[0]
    if not _same_kind(wish.accelerator_type, own):
        told = f"acceleratorType is {wish.accelerator_type!r}; that of {machine.name} is {own}."
        raise InvalidField(told, "machine_spec.acceleratorType")
    if wish.accelerator_count != machine.accelerator_count:
        raise InvalidField(
            f"acceleratorCount is {wish.accelerator_count}; {machine.name} has {machine.accelerator_count}.",
            "machine_spec.acceleratorCount",
        )
    return machine


def name_from(text: str, fallback: str) -> str:
    """A name that models and endpoints may have, made from the last part of an address."""
    name = _UNFIT_IN_NAMES.sub("-", text.rstrip("/").rpartition("/")[2]).strip("-")[:40]
    return name if name[:1].isascii() and name[:1].isalpha() else f"{fallback}-{name}".rstrip("-")


def _same_kind(named: str, own: str) -> bool:
    """NVIDIA_H100_80GB, NVIDIA_TESLA_T4 and h100 are other words for what Ray calls H100 and T4."""
    if own == NO_CARD[0]:
        return named.upper() in NO_CARD
    plain = _VENDOR.sub("", named).upper().replace("_", "-")
    return plain == own.upper() or (plain.startswith(f"{own.upper()}-") and plain.rpartition("-")[2].endswith("GB"))
