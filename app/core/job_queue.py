"""Which jobs begin: in order of priority and age, where the cluster has room that endpoints do not need. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from app.core.slots import machine_resources
from app.core.specs import MachineType
from app.core.tuning_spec import Priority
from app.core.waiting import Room, shortage

RANK: Mapping[Priority, int] = {"high": 0, "normal": 1, "low": 2}
_ROUNDING = 1e-4
"""Ray counts in ten-thousandths."""


@dataclass(frozen=True)
class Place:
    """What a job takes while it runs: so many machines of a type."""

    job_id: str
    machine: MachineType
    instances: int
    rank: int = RANK["normal"]
    preemptible: bool = False
    workspace: str = ""


@dataclass
class JobQueue:
    """One round. Ask for the jobs one after the other, in the order in which they are to begin.

    A job that finds no room holds back those behind it that want the same kind of machine, else a large one would
    never begin; but not one for which there would be no room if nothing else ran. `rooms` is None while the cluster
    does not tell; then Ray's own queue decides.
    """

    rooms: Sequence[Room] | None
    reserve: Mapping[str, float] = field(default_factory=dict)
    """By Ray's names: what jobs leave free, in the whole cluster, for endpoints."""
    taken: Iterable[Place] = ()
    """Of jobs whose processes have been asked for and may not hold yet what they need."""
    short: Mapping[str, MachineType] = field(default_factory=dict)
    """The endpoints that wait for room now, by ID, and their machine types."""

    def __post_init__(self) -> None:
        self._free = [dict(room.free) for room in self.rooms or ()]
        self._held_back: list[Place] = []
        for place in self.taken:
            self._take(place)

    def held(self, place: Place) -> str:
        """Why the job has to wait, in words; empty: it begins, and has its place."""
        if self.rooms is None:
            return ""
        why = self._why_not(place)
        if why and self._may_ever_begin(place):
            self._held_back.append(place)
        return why

    def _may_ever_begin(self, place: Place) -> bool:
        empty = [Room(room.total, room.total, room.labels) for room in self.rooms or ()]
        return not JobQueue(empty, self.reserve)._why_not(place)

    def _why_not(self, place: Place) -> str:
        if any(same_kind(machine, place.machine) for machine in self.short.values()):
            return "waiting: an endpoint needs room first"
        first = next((one for one in self._held_back if same_kind(one.machine, place.machine)), None)
        if first is not None:
            # What other workspaces have does not exist for this one.
            return f"waiting behind {f'job {first.job_id}' if first.workspace == place.workspace else 'another job'}"
        before = [dict(free) for free in self._free]
        if not self._take(place):
            self._free = before
            rooms = [Room(room.total, free, room.labels) for room, free in zip(self.rooms or (), before, strict=True)]
            told = shortage(machine_resources(place.machine), _labelled(place.machine, rooms))
            return told or f"waiting for {place.instances} machines of type {place.machine.name}"
        wanted = machine_resources(place.machine)
        for name, kept in self.reserve.items():
            left = sum(free.get(name, 0.0) for free in self._free)
            if name in wanted and left < kept - _ROUNDING:
                self._free = before
                return f"waiting for {wanted[name] * place.instances:g} x {name}: {kept:g} are kept free for endpoints"
        return ""

    def _take(self, place: Place) -> bool:
        """Each instance from the first node that has room for it."""
        needed = machine_resources(place.machine)
        for _ in range(place.instances):
            node = next(
                (
                    free
                    for room, free in zip(self.rooms or (), self._free, strict=True)
                    if all(room.labels.get(name) == value for name, value in place.machine.labels.items())
                    and all(free.get(name, 0.0) > count - _ROUNDING for name, count in needed.items())
                ),
                None,
            )
            if node is None:
                return False
            for name, count in needed.items():
                node[name] -= count
        return True


def same_kind(one: MachineType, other: MachineType) -> bool:
    """Whether what holds one of these may be what the other waits for."""
    return (bool(one.accelerator_count), one.accelerator) == (bool(other.accelerator_count), other.accelerator)


def leaves(short: Mapping[str, MachineType], running: Iterable[Place]) -> Place | None:
    """The job that is asked to leave for an endpoint that waits.

    Of those that may be asked the lowest priority's, and of these the one that began last. `running`: oldest first.
    """
    for machine in short.values():
        may = [place for place in running if place.preemptible and same_kind(place.machine, machine)]
        if may:
            return max(enumerate(may), key=lambda one: (one[1].rank, one[0]))[1]
    return None


def _labelled(machine: MachineType, rooms: Sequence[Room]) -> list[Room]:
    return [room for room in rooms if all(room.labels.get(k) == v for k, v in machine.labels.items())]
