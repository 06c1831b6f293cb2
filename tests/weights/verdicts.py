"""What tests of the validation share beside their fixtures."""

from collections.abc import Callable
from pathlib import Path

from app.core.findings import Report
from app.core.job_specs import MachineMemory

MACHINES = (MachineMemory(name="big", memory_bytes=80 << 30),)

Sound = Callable[[str], Path]
"""From a family, or "sharded", to its folder."""
Check = Callable[..., Report]


def codes(report: Report, severity: str = "error") -> set[str]:
    return {found.code for found in report.findings if found.severity == severity}
