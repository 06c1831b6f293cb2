"""JSON that callers make up themselves, of bounded size."""

import math
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator

MAX_NUMBER = (1 << 64) - 1
MAX_LEVELS = 32
MAX_VALUES = 65_536
MAX_MARK_LEVELS = 4
MAX_MARK_VALUES = 32


def nodes(value: Any, what: str, levels: int, values: int) -> Iterator[Any]:
    """All objects, lists and plain values in `value`, level by level.

    Raises ValueError, which says `what`, for more of them or of their levels than allowed, and for odd numbers.
    """
    level: list[Any] = [value]
    seen = depth = 0
    while level:
        seen, depth = seen + len(level), depth + 1
        if depth > levels:
            raise ValueError(f"{what} has at most {levels} levels")
        groups = [node.values() if isinstance(node, dict) else node for node in level if isinstance(node, dict | list)]
        if seen + sum(map(len, groups)) > values:
            raise ValueError(f"{what} has at most {values} values")
        for node in level:
            _check_number(node)
            yield node
        level = [child for group in groups for child in group]


def _check_number(node: Any) -> None:
    if isinstance(node, float) and not math.isfinite(node):
        raise ValueError("NaN and Infinity are not JSON")
    if isinstance(node, int) and not -MAX_NUMBER <= node <= MAX_NUMBER:
        raise ValueError("whole numbers have at most 64 bits")


def _within(value: Any) -> Any:
    for _ in nodes(value, "it", MAX_LEVELS, MAX_VALUES):
        pass
    return value


def _within_mark(value: Any) -> Any:
    for _ in nodes(value, "it", MAX_MARK_LEVELS, MAX_MARK_VALUES):
        pass
    return value


Echo = Annotated[Any, AfterValidator(_within)]
"""What a client has made of an answer and sends back."""
Mark = Annotated[dict[str, Any], AfterValidator(_within_mark)]
"""A small object that nothing depends on."""
