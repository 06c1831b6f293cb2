"""Machine types: what there is, what each workspace holds of it, and which one an endpoint's units get."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import psutil

from app.catalog.catalog import Catalog
from app.core.errors import Conflict, InvalidField
from app.core.job_specs import MachineMemory
from app.core.machines import Fit, choose, fit, memory_bytes
from app.core.needs import Needs, length_tokens, needs_of
from app.core.records import Endpoint, Model, Workspace
from app.core.servable import Shape
from app.core.slots import Slots, slots
from app.core.specs import (
    DEFAULT_MACHINE_TYPE,
    MACHINE_TYPES,
    USUAL_LENGTH_TOKENS,
    EndpointSpec,
    MachineType,
    Precision,
)
from app.core.steps import scale_problem
from app.core.waiting import Room
from app.core.wishes import Machine
from app.store.database import Registry
from app.unit.accelerators import has_amx

ROOMS_KEPT_S = 2.0
"""How old the answer about the cluster's nodes may be."""
_SHORTEST = 16
"""Tokens of the shortest max_model_len."""
HOLDS_NOTHING = ("deleting", "stopped")
"""States in which an endpoint's units do not count against the quota."""

log = logging.getLogger("ray.serve")


class Machines:
    """The machine types of the serve config, beside or instead of the built-in ones of the same names."""

    def __init__(
        self,
        registry: Registry,
        catalog: Catalog,
        declared: Iterable[MachineType],
        rooms: Callable[[], Sequence[Room]],
        clock: Callable[[], float] = time.monotonic,
        amx: bool | None = None,
    ):
        """`rooms`: the cluster's nodes; may raise while the cluster does not tell.

        `amx`: whether CPUs have AMX of which the config does not say so; None: as this machine's.
        """
        self._registry = registry
        self._catalog = catalog
        types = MACHINE_TYPES | {machine.name: machine for machine in declared}
        usual = has_amx() if amx is None else amx
        self._types = {name: _with_amx(machine, usual) for name, machine in types.items()}
        self._rooms = rooms
        self._clock = clock
        self._asking = threading.Lock()
        self._seen: tuple[float, Sequence[Room] | None] = (float("-inf"), None)
        """When the cluster was asked last, and its answer."""

    def all(self) -> list[MachineType]:
        """By name."""
        return [self._types[name] for name in sorted(self._types)]

    def get(self, name: str) -> MachineType:
        """Raises InvalidField for a machine type that there is not."""
        if name not in self._types:
            allowed = ", ".join(sorted(self._types))
            raise InvalidField(f"machine_type {name!r} is unknown; allowed: {allowed}.", "machine_type")
        return self._types[name]

    def find(self, name: str) -> MachineType | None:
        """One that a serve config no longer declares may still be named by an endpoint."""
        return self._types.get(name)

    def memory(self) -> list[MachineMemory]:
        """What units of each type hold; empty when that is not known of all: the others may hold anything."""
        known = [(machine.name, memory_bytes(machine)) for machine in self.all()]
        found = [MachineMemory(name=name, memory_bytes=size) for name, size in known if size is not None]
        return found if len(found) == len(known) else []

    def used(self, workspace: str, name: str, but: Endpoint | None = None) -> int:
        """Units that a workspace's endpoints, apart from one, may have of a type at most."""
        return sum(
            endpoint.spec.scale.max_units
            for endpoint in self._registry.find(Endpoint, workspace=workspace, machine_type=name, deleted_at=None)
            if endpoint.state not in HOLDS_NOTHING and (but is None or endpoint.id != but.id)
        )

    def quota(self, workspace: str, machine: MachineType) -> int | None:
        """Units of a type that a workspace may have; None: any number."""
        if not machine.quotas:
            return machine.quota
        found = self._registry.get(Workspace, workspace)
        by_name = machine.quotas.get(found.name, machine.quota) if found else machine.quota
        return machine.quotas.get(workspace, by_name)

    def check_quotas(self) -> None:
        """Tell the log of quotas for workspaces that there are not, which may come yet or be misspelled."""
        known = {name for workspace in self._registry.find(Workspace) for name in (workspace.id, workspace.name)}
        for machine in self._types.values():
            for name in sorted(machine.quotas.keys() - known):
                log.warning("machine type %s has a quota for %s, and there is no such workspace", machine.name, name)

    def look(self) -> None:
        """Ask the cluster about its nodes, unless it has just told; never with the platform's lock held.

        It may take a few seconds.
        """
        begun = self._clock()
        with self._asking:
            asked_at, nodes = self._seen
            if asked_at > begun or (nodes is not None and begun - asked_at <= ROOMS_KEPT_S):
                return  # an answer that another caller got while this one waited will do, even if it is none
            try:
                nodes = self._rooms()
            except Exception:  # whatever Ray raises: nobody waits for it
                log.debug("the cluster does not tell of its nodes", exc_info=True)
                nodes = None
            self._seen = (self._clock(), nodes)

    def slots(self, machine: MachineType) -> Slots | None:
        """Units for which the cluster has room, in the smallest mode; None when the cluster does not tell.

        Asks the cluster, as `look` does.
        """
        self.look()
        return self._slots(machine)

    @property
    def rooms(self) -> Sequence[Room] | None:
        """The cluster's nodes as it told last, see `look`; None when it did not."""
        return self._seen[1]

    def _slots(self, machine: MachineType) -> Slots | None:
        nodes = self._seen[1]
        mode = min(machine.modes, key=lambda mode: mode.machines)
        return None if nodes is None else slots(machine, mode, nodes)

    def needs(self, spec: EndpointSpec, model: Model | None) -> Needs:
        """What the units of an endpoint need, as far as its model tells."""
        if model is None:
            return Needs(Shape(spec.precision), kv_cache_bytes=spec.engine.kv_cache_bytes)
        entry = self._catalog.find(model.base_model)
        if entry is None:
            return needs_of(spec, model.facts, model.size_bytes)
        return needs_of(spec, model.facts, model.size_bytes, entry.parameters_b, entry.max_length_tokens)

    def length_tokens(self, spec: EndpointSpec, model: Model) -> int:
        """The longest prompt plus answer of an endpoint's units."""
        entry = self._catalog.find(model.base_model)
        usual = entry.max_length_tokens if entry else USUAL_LENGTH_TOKENS
        return length_tokens(spec.max_model_len, model.facts, usual)

    def fit(self, spec: EndpointSpec, model: Model | None, machine: MachineType) -> Fit:
        """Whether the endpoint's units can run there. Raises InvalidField, with all reasons, when they cannot."""
        found = fit(self.needs(spec, model), machine)
        if not found.ok:
            raise InvalidField(
                f"machine_type {machine.name} cannot serve this: {'; '.join(found.reasons)}.", "machine_type"
            )
        return found

    def require_scale(self, spec: EndpointSpec, machine: MachineType) -> None:
        """Raises InvalidField, with the nearest that is allowed, for a scale range that is not in its steps."""
        if problem := scale_problem(spec.scale, machine, spec.engine):
            field, reason = problem
            raise InvalidField(f"{reason}.", field)

    def place(
        self, workspace: str, spec: EndpointSpec, model: Model | None, current: Endpoint | None = None, *, bound: bool
    ) -> Machine:
        """The machine type for a spec, and why that one where the platform chose it.

        Goes by what the cluster said when it was asked last, see `look`.
        `current`: the endpoint as it is; what the platform chose for it stays while it fits. `bound`: the steps and the
        quota hold. Raises InvalidField for a type that there is not or that does not fit and for a scale range that is
        not in its steps, Conflict when the quota is used up.
        """
        if spec.machine_type is not None:
            machine, why = self.get(spec.machine_type), ""
            self.fit(spec, model, machine)
        else:
            machine, why = self._chosen(spec, model, current)
        if bound:
            self.require_scale(spec, machine)
            self._require_quota(workspace, machine, spec, current)
        return Machine(machine.name, why)

    def _chosen(self, spec: EndpointSpec, model: Model | None, current: Endpoint | None) -> tuple[MachineType, str]:
        needs = self.needs(spec, model)
        if current is not None and current.placement and current.machine_type in self._types:
            machine = self._types[current.machine_type]
            if fit(needs, machine).ok:
                return machine, current.placement
        present = {name for name, machine in self._types.items() if self._present(machine)}
        there = None if self._seen[1] is None else present
        in_steps = [machine for machine in self.all() if not scale_problem(spec.scale, machine, spec.engine)]
        found = choose(needs, in_steps, there) or choose(needs, self.all(), there)
        if found is None:
            told = "; ".join(f"{machine.name}: {', '.join(fit(needs, machine).reasons)}" for machine in self.all())
            raise InvalidField(f"No machine type can serve this: {told}.", "machine_type")
        return found

    def for_job(self, name: str | None) -> MachineType:
        """The machine type for a job: the one named, else the smallest with cards of which there is a node, else a CPU.

        Goes by what the cluster said when it was asked last, see `look`. Raises InvalidField for a name unknown.
        """
        if name is not None:
            return self.get(name)
        there = [machine for machine in self.all() if self._seen[1] is not None and self._present(machine)]
        with_cards = [machine for machine in there if machine.accelerator_count]
        smallest = min(with_cards, key=lambda machine: (machine.accelerator_count, machine.name), default=None)
        return smallest or self.get(DEFAULT_MACHINE_TYPE)

    def only_node_memory_bytes(self) -> int | None:
        """The memory of the cluster's only node, which is then this one; None where there are more or none is known."""
        return psutil.virtual_memory().total if self.rooms is not None and len(self.rooms) == 1 else None

    def targets(self) -> list[MachineType]:
        """Where versions are to be servable: the types of which there is a node, else all; goes by the last `look`."""
        return [machine for machine in self.all() if self._present(machine)] or self.all()

    def runs_on(self, model: Model, precision: Precision) -> dict[str, str]:
        """Of each machine type why a version of a model cannot be served there, empty where it can.

        `model` as Models.in_precision gives it; of a request's length only the least is counted.
        """
        spec = EndpointSpec(name="any", model=model.id, precision=precision, max_model_len=_SHORTEST)
        needs = self.needs(spec, model)
        return {machine.name: "; ".join(fit(needs, machine).reasons) for machine in self.all()}

    def _present(self, machine: MachineType) -> bool:
        found = self._slots(machine)
        return found is None or found.total > 0

    def _require_quota(
        self, workspace: str, machine: MachineType, spec: EndpointSpec, current: Endpoint | None
    ) -> None:
        quota = self.quota(workspace, machine)
        wanted = spec.scale.max_units
        if quota is None or (current and wanted <= _held(current, machine)):
            return  # what takes no more than before may stay: the quota may have been lowered since
        used = self.used(workspace, machine.name, but=current)
        if used + wanted > quota:
            raise Conflict(
                f"This workspace may have {quota} units of {machine.name}; other endpoints may take {used} "
                f"already, and this one asks for {wanted} (scale.max_units).",
                "scale.max_units",
                "quota_exceeded",
            )


def _held(endpoint: Endpoint, machine: MachineType) -> int:
    """Units of a type that an endpoint may take as it is."""
    holds = endpoint.machine_type == machine.name and endpoint.state not in HOLDS_NOTHING
    return endpoint.spec.scale.max_units if holds else 0


def _with_amx(machine: MachineType, amx: bool | None) -> MachineType:
    """Where its config does not say: cards need none."""
    if machine.accelerator_count or machine.amx is not None:
        return machine
    return machine.model_copy(update={"amx": amx})
