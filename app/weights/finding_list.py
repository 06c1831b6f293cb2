"""Findings as they come: of each kind the first few, and how many more there were."""

from collections import Counter
from collections.abc import Iterable
from typing import Unpack

from app.core.findings import FINDINGS_LIMIT, Finding, Where, finding

PER_KIND = 10
"""A damaged file can be wrong in thousands of tensors; ten show the pattern."""


class FindingList:
    """Collects; a kind is what has the same code and asks for the same fix."""

    def __init__(self) -> None:
        self._kept: list[Finding] = []
        self._counts: Counter[tuple[str, str, bool]] = Counter()

    def add(self, code: str, fix: str, **where: Unpack[Where]) -> None:
        """As app.core.findings.finding."""
        self.extend([finding(code, fix, **where)])

    def extend(self, findings: Iterable[Finding]) -> None:
        """Add findings made elsewhere."""
        for found in findings:
            kind = (found.code, found.fix, found.severity == "warning")
            self._counts[kind] += 1
            if self._counts[kind] <= PER_KIND:
                self._kept.append(found)

    def all(self) -> tuple[Finding, ...]:
        """At most FINDINGS_LIMIT, in the order they came but errors first."""
        rest = [
            finding(code, fix, found=f"{count - PER_KIND} more like the others", warning=warning)
            for (code, fix, warning), count in self._counts.items()
            if count > PER_KIND
        ]
        ordered = sorted([*self._kept, *rest], key=lambda found: found.severity == "warning")
        return tuple(ordered[:FINDINGS_LIMIT])
