"""What an endpoint waits for, in words."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_TYPE_MARK = "accelerator_type:"
"""Begins the name of the resource by which Ray marks the nodes that have a type of accelerator."""
_BYTES = ("memory", "object_store_memory")
_ROUNDING = 1e-4
"""Ray counts in ten-thousandths."""
_LACK = re.compile(r"\bwaiting for [\d.]")
_COUNTS = re.compile(r": [\d.]+ of [\d.]+ [MG]iB|(?<=copying) \d+ %|, [\d.]+(?: GiB)? free(?: on one node)?")


@dataclass(frozen=True)
class Room:
    """A node's resources by Ray's names: all of them, and those that nobody holds."""

    total: Mapping[str, float]
    free: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


def shortage(needed: Mapping[str, float], nodes: Sequence[Room]) -> str:
    """The first resource of which no node has as much free as a unit needs, such as "waiting for 2 x H100, 1 free".

    What is rare is looked at first, and the rest only where that is enough. Empty when some node has it all.
    """
    wanted = {name: count for name, count in needed.items() if count > 0}
    marks = [name for name in wanted if name.startswith(_TYPE_MARK)]
    accelerator = marks[0].removeprefix(_TYPE_MARK) if marks else "GPU"
    fitting = [node for node in nodes if all(mark in node.total for mark in marks)]
    for name in sorted(wanted.keys() - set(marks), key=_rarest_first):
        count = wanted[name]
        enough = [node for node in fitting if node.free.get(name, 0.0) > count - _ROUNDING]
        if not enough:
            title = accelerator if name == "GPU" else name
            return f"waiting for {_amount(title, count)}, {_left(name, count, fitting)}"
        fitting = enough
    return ""


def lacks_room(reason: str) -> bool:
    """Whether a reason says of a unit what `shortage` says."""
    return _LACK.search(reason) is not None


def without_counts(reason: str) -> str:
    """A reason without what changes from second to second: as long as this stays the same, nothing has happened."""
    return _COUNTS.sub("", reason)


def _rarest_first(name: str) -> tuple[object, ...]:
    return name in _BYTES, name == "CPU", name != "GPU", name


def _amount(name: str, count: float) -> str:
    if name in _BYTES:
        return f"{_number(name, count)} of {name.replace('_', ' ')}"
    return f"{count:g} {name}" if name == "CPU" else f"{count:g} x {name}"


def _left(name: str, count: float, nodes: Sequence[Room]) -> str:
    largest = max((node.total.get(name, 0.0) for node in nodes), default=0.0)
    if largest < count - _ROUNDING:
        return f"no node has more than {_number(name, largest)}" if largest else "no node has any"
    free = [node.free.get(name, 0.0) for node in nodes]
    scattered = sum(free) > count - _ROUNDING
    return f"{_number(name, max(free))} free{' on one node' if scattered else ''}"


def _number(name: str, count: float) -> str:
    return f"{count / (1 << 30):.1f} GiB" if name in _BYTES else f"{round(count, 4):g}"
