"""What happened, as a picture: load above, units below, drawn with nothing but text."""

from collections.abc import Mapping, Sequence

Steps = Sequence[tuple[float, float]]
"""(moment, value from then on)."""

WIDTH, PANEL, LEFT, GAP = 1200, 220, 60, 50


def svg(title: str, start_s: float, end_s: float, panels: Sequence[tuple[str, Mapping[str, Steps]]]) -> str:
    """Panels below each other, each with lines by name and colour: {"load #1f77b4": steps}."""
    height = GAP + len(panels) * (PANEL + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="16">{title}</text>',
    ]
    for number, (name, lines) in enumerate(panels):
        parts += _panel(name, lines, GAP + number * (PANEL + GAP), start_s, end_s)
    return "\n".join([*parts, "</svg>\n"])


def _panel(name: str, lines: Mapping[str, Steps], top: int, start_s: float, end_s: float) -> list[str]:
    most = max([1.0, *(value for steps in lines.values() for _, value in steps)])
    bottom, width = top + PANEL, WIDTH - LEFT - 20

    def x(at_s: float) -> float:
        return round(LEFT + width * (min(max(at_s, start_s), end_s) - start_s) / (end_s - start_s), 1)

    def y(value: float) -> float:
        return round(bottom - (PANEL - 20) * value / most, 1)

    hours = (end_s - start_s) / 3600
    every_h = 24 if hours > 48 else 3
    parts = [f'<text x="{LEFT}" y="{top + 10}">{name}</text>']
    for hour in range(0, int(hours) + 1, every_h):
        at = x(start_s + hour * 3600)
        label = f"day {hour // 24 + 1}" if every_h == 24 else f"{hour}:00"
        parts.append(f'<path d="M{at} {top + 20}V{bottom}" stroke="#dddddd"/>')
        parts.append(f'<text x="{at}" y="{bottom + 15}" fill="#666666">{label}</text>')
    for value in (0.0, most / 2, most):
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4}" text-anchor="end" fill="#666666">{value:g}</text>')
    for number, (line, steps) in enumerate(lines.items()):
        label, _, colour = line.partition(" #")
        points, before = [], 0.0
        for at_s, value in steps:
            points.append(f"{x(at_s)},{y(before)} {x(at_s)},{y(value)}")
            before = value
        points.append(f"{x(end_s)},{y(before)}")
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="#{colour}" stroke-width="1.2"/>')
        parts.append(f'<text x="{LEFT + 260 + 120 * number}" y="{top + 10}" fill="#{colour}">{label}</text>')
    return parts
