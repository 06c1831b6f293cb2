"""Faults on purpose, for tests: the control plane dies at a step of its work, as a lost machine would."""

import os
import signal
from collections.abc import Callable, Collection
from pathlib import Path

STEPS = (
    "planned",
    "deploying",
    "deployed",
    "removing",
    "removed",
    "publishing",
    "published",
    "writing",
    "written",
    "entombing",
    "entombed",
)
"""The reconciler's, in the order in which it takes them. One endpoint's may be named with it, as in "deployed demo"."""


def no_fault(step: str) -> None:
    """What the reconciler does at its steps outside of tests."""


def die_once(steps: Collection[str], home: Path) -> Callable[[str], None]:
    """Kills this process when it reaches one of these steps; each step does so only once in this HOME."""
    if not steps:
        return no_fault

    def at(reached: str) -> None:
        if reached not in steps:
            return
        mark = home / f"died-at-{reached.replace(' ', '-')}"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return at
