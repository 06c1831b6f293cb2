"""What a training has gone through, as a picture: loss above, learning rate below. SVG is nothing but text."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

Points = Sequence[tuple[float, float]]
"""(iteration, value)."""

WIDTH, PANEL, LEFT, RIGHT, GAP = 900, 260, 80, 20, 50
_TICKS = 5


def svg(title: str, points: Sequence[dict[str, Any]]) -> str:
    """The picture of a curve as GET jobs/{id}/metrics gives it."""
    panels = [
        (
            "lm loss",
            {"loss #1f77b4": _line(points, "loss"), "validation loss #d62728": _line(points, "validation_loss")},
        ),
        ("learning rate", {"learning rate #2ca02c": _line(points, "learning_rate")}),
    ]
    height = GAP + len(panels) * (PANEL + GAP)
    last = max([1.0, *(float(point["iteration"]) for point in points)])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="16">{escape(title)}</text>',
    ]
    for number, (name, lines) in enumerate(panels):
        parts += _panel(name, lines, GAP + number * (PANEL + GAP), last)
    return "\n".join([*parts, "</svg>\n"])


def _line(points: Sequence[dict[str, Any]], field: str) -> Points:
    return [(point["iteration"], point[field]) for point in points if point.get(field) is not None]


def _panel(name: str, lines: dict[str, Points], top: int, last: float) -> list[str]:
    values = [value for line in lines.values() for _, value in line]
    low, high = min([0.0, *values]), max(values, default=0.0)
    high = high if high > low else low + 1
    bottom, width = top + PANEL, WIDTH - LEFT - RIGHT

    def x(iteration: float) -> float:
        return round(LEFT + width * iteration / last, 1)

    def y(value: float) -> float:
        return round(bottom - (PANEL - 30) * (value - low) / (high - low), 1)

    parts = [f'<text x="{LEFT}" y="{top + 10}">{name}</text>']
    for tick in range(_TICKS + 1):
        value, iteration = low + (high - low) * tick / _TICKS, math.floor(last * tick / _TICKS)
        parts.append(f'<path d="M{LEFT} {y(value)}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4}" text-anchor="end" fill="#666666">{value:.3g}</text>')
        parts.append(f'<text x="{x(iteration)}" y="{bottom + 16}" text-anchor="middle">{iteration}</text>')
    for number, (line, points) in enumerate((line, points) for line, points in lines.items() if points):
        label, _, colour = line.partition(" #")
        drawn = " ".join(f"{x(iteration)},{y(value)}" for iteration, value in points)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="#{colour}" stroke-width="1.4"/>')
        parts.append(f'<text x="{LEFT + 200 + 140 * number}" y="{top + 10}" fill="#{colour}">{label}</text>')
    return parts
