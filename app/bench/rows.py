"""From figures of several rounds to rows of the table: medians, ratios, spreads, units and what was wanted."""

import statistics
from collections.abc import Mapping, Sequence

from app.bench.limits import Row, judged

Samples = Mapping[str, Sequence[float]]
"""Row name -> one figure for each round."""

UNITS = {
    "tokens_per_s": "tokens/s",
    "mib_per_s": "MiB/s",
    "requests_per_s": "requests/s",
    "_ms": "ms",
    "_us": "us",
    "_bytes": "bytes",
    "_pct": "% of a core",
    "compression_s": "s",
    "token_s": "s",
    "70b_s": "s",
    "p95_s": "s",
    "extra_s": "s",
    "recovery_s": "s",
    "_ratio": "",
}


def rows(ours: Samples, plain: Samples) -> list[Row]:
    """One row for each name that both sides have, in our order. Raises StopIteration for a name without a unit."""
    return [_row(name, ours[name], plain[name]) for name in ours if name in plain]


def rows_alone(ours: Samples) -> list[Row]:
    """Rows of what plain vLLM does not do at all."""
    nothing = {"plain": None, "ratio": None, "spread": None}
    return [
        judged({"name": name, "unit": _unit(name), "ours": round(statistics.median(figures), 3), **nothing})
        for name, figures in ours.items()
    ]


def _unit(name: str) -> str:
    return next(unit for part, unit in UNITS.items() if part in name)


def _row(name: str, ours: Sequence[float], plain: Sequence[float]) -> Row:
    """Medians over the rounds; the ratio is the median of each round's, the spread its widest difference.

    Where plain's figure is 0 (an idle process may use no CPU at all) there is no ratio.
    """
    base = plain if len(plain) == len(ours) else [statistics.median(plain)] * len(ours)
    ratios = [a / b for a, b in zip(ours, base, strict=True)] if all(base) else []
    row = {
        "name": name,
        "unit": _unit(name),
        "ours": round(statistics.median(ours), 3),
        "plain": round(statistics.median(plain), 3),
        "ratio": round(statistics.median(ratios), 3) if ratios else None,
        "spread": round(max(ratios) - min(ratios), 3) if ratios else None,
    }
    return judged(row)
