"""Machine types and what fits on them: pure, and only refusing what certainly cannot work."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from app.core.needs import Needs
from app.core.servable import mode_problem
from app.core.specs import DeploymentMode, MachineType

CARD_SHARE = 0.92
"""Of a card's memory vLLM takes so much, its default."""
_GIB = 1 << 30


@dataclass(frozen=True)
class Fit:
    """Whether units with such needs can run on a machine type; `reasons` is empty just when they can."""

    reasons: tuple[str, ...] = ()
    mode: DeploymentMode | None = None
    """How a unit is spread: over as few machines as hold it. None when none of the type's ways does."""

    @property
    def ok(self) -> bool:
        return not self.reasons


def fit(needs: Needs, machine: MachineType) -> Fit:
    """Whether a unit can run there, if such a machine is free; for one that is not, units wait."""
    ways = sorted(machine.modes, key=lambda mode: mode.machines)  # stable: the first of equal ones stays first
    unserved = {mode: mode_problem(needs.shape, machine, mode) for mode in ways}
    short = {mode: _memory_problem(needs, machine, mode) for mode in ways}
    mode = next((mode for mode in ways if unserved[mode] is None and short[mode] is None), None)
    if mode is not None:
        return Fit(mode=mode)
    served = [mode for mode in ways if unserved[mode] is None]
    largest = (served or ways)[-1]
    reasons = (unserved[ways[0]] if not served else None, short[largest])
    return Fit(tuple(reason for reason in reasons if reason))


def choose(
    needs: Needs, machines: Iterable[MachineType], present: Collection[str] | None = None
) -> tuple[MachineType, str] | None:
    """The smallest type on which units can run, and why that one; None when there is none.

    `present`: the types of which the cluster has a node now, when that is known: they come before those that have to
    wait for one, and among them those with cards before CPUs.
    """
    found = {machine.name: (machine, fit(needs, machine)) for machine in machines}
    fitting = [(machine, how.mode) for machine, how in found.values() if how.ok and how.mode]
    if not fitting:
        return None
    here = [one for one in fitting if present is None or one[0].name in present]
    with_cards = [one for one in here if one[0].accelerator_count] if present is not None else []
    passed_over = len(with_cards) not in (0, len(here))
    here = with_cards or here
    machine, _ = min(here or fitting, key=lambda one: _size(*one))
    told = [f"{_memory_told(needs)}; the smallest that fits" if _memory_told(needs) else "the smallest that fits"]
    if refused := [f"{name}: {how.reasons[0]}" for name, (_, how) in found.items() if not how.ok]:
        told.append("not " + ", not ".join(refused))
    if passed_over:
        told.append("cards come before CPUs where a node has them")
    absent = [one.name for one, _ in fitting if here and present is not None and one.name not in present]
    if absent:
        told.append(f"no node is there now for {', '.join(sorted(absent))}")
    if not here:
        told.append("no node is there for it yet")
    return machine, "; ".join(told)


def memory_bytes(machine: MachineType, mode: DeploymentMode | None = None) -> int | None:
    """What weights and KV cache of a unit may take, None where it is not known; in the largest mode unless told."""
    machines = mode.machines if mode else max(mode.machines for mode in machine.modes)
    if not machine.accelerator_count:
        return machine.memory_bytes
    if machine.accelerator_memory_bytes is None:
        return None
    return int(machine.accelerator_memory_bytes * machine.accelerator_count * machines * CARD_SHARE)


def driver_problem(wanted: str | None, found: str | None) -> str | None:
    """Why a node cannot run units of a machine type that names a driver version; None when it can."""
    if wanted is None or wanted == found:
        return None
    seen = f"this node has {found}" if found else "this node has none that tells its version"
    return f"the machine type needs the accelerator driver {wanted}; {seen}"


def _memory_problem(needs: Needs, machine: MachineType, mode: DeploymentMode) -> str | None:
    cache = needs.kv_cache_bytes or machine.kv_cache_bytes
    if cache is not None and needs.kv_bytes is not None and needs.kv_bytes > cache:
        return (
            f"the KV cache holds {told_bytes(cache)}, but one request of max_model_len takes "
            f"{told_bytes(needs.kv_bytes)}; shorten max_model_len or raise engine.kv_cache_bytes"
        )
    held = memory_bytes(machine, mode)
    if held is None:
        return None
    weights, kv = needs.weights_bytes or 0, cache or needs.kv_bytes or 0
    if weights + kv <= held:
        return None
    parts = f"weights {told_bytes(weights)}, KV cache {told_bytes(kv)}"
    where = "of main memory" if not machine.accelerator_count else _cards(machine, mode)
    return f"a unit needs {told_bytes(weights + kv)} ({parts}), but {machine.name} has {told_bytes(held)} {where}"


def _cards(machine: MachineType, mode: DeploymentMode) -> str:
    over = f" in each of {mode.machines} machines" if mode.machines > 1 else ""
    return f"for it on {machine.accelerator_count} x {machine.accelerator or 'GPU'}{over}"


def _memory_told(needs: Needs) -> str:
    parts = [("weights", needs.weights_bytes), ("KV cache of one request", needs.kv_bytes)]
    return ", ".join(f"{name} {told_bytes(size)}" for name, size in parts if size and size >= 1 << 20)


def _size(machine: MachineType, mode: DeploymentMode) -> tuple[float, float, float, str]:
    cards = machine.accelerator_count * mode.machines
    memory = machine.accelerator_memory_bytes if cards else machine.memory_bytes
    return cards, memory or float("inf"), machine.cpus, machine.name


def told_bytes(size_bytes: int) -> str:
    """In GiB, or in MiB where that says more."""
    return f"{size_bytes / _GIB:.1f} GiB" if size_bytes >= _GIB else f"{size_bytes / (1 << 20):.0f} MiB"
