"""A thread that steps until it is told to stop. It may fail a step; it never spins, and dies of one error only."""

import logging
import threading
from collections.abc import Callable

from app.core.errors import Superseded

STOP_TIMEOUT_S = 10.0
TAKEN_OVER = (
    "another control plane has taken over; if that happens again and again, two clusters use one database: "
    "give each its own MODELUNIT_DATABASE_URL"
)

log = logging.getLogger("ray.serve")


class Loop:
    """Calls a function again and again; it returns whether nothing is left to wait for.

    If something is, the next step follows after `busy_period_s`, else after `idle_period_s` or a nudge.
    It ends for good when a step meets Superseded: another control plane has taken over.
    """

    def __init__(self, name: str, idle_period_s: float, busy_period_s: float):
        self._name = name
        self._idle_period_s = idle_period_s
        self._busy_period_s = busy_period_s
        self._nudged = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self, step: Callable[[], bool]) -> None:
        """Begin to call `step`."""
        self._thread = threading.Thread(target=self._run, args=(step,), name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the step that runs now, and wait for that."""
        self._stopped = True
        self.nudge()
        if self._thread:
            self._thread.join(STOP_TIMEOUT_S)

    def nudge(self) -> None:
        """Something changed: do not wait for the next period."""
        self._nudged.set()

    @property
    def alive(self) -> bool:
        """Whether the loop still runs."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self, step: Callable[[], bool]) -> None:
        while not self._stopped:
            self._nudged.clear()
            try:
                settled = step()
            except Superseded:
                log.warning("the %s ends: %s", self._name, TAKEN_OVER)
                return
            except Exception:
                log.exception("a step of the %s failed", self._name)
                settled = False
            self._nudged.wait(self._idle_period_s if settled else self._busy_period_s)
