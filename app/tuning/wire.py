"""Between the workers that train and the process that started them. An actor of its own: it imports nothing heavy."""

from collections import deque

from app.core.errors import PlatformError
from app.tuning.reports import Report

MOST_REPORTS = 10_000


class Wire:
    """What the first worker tells, and whether all are to stop."""

    def __init__(self) -> None:
        self._reports: deque[Report] = deque(maxlen=MOST_REPORTS)
        self._stop = False
        self._error: PlatformError | None = None

    def put(self, report: Report) -> bool:
        self._reports.append(report)
        return self._stop

    def take(self) -> list[Report]:
        return [self._reports.popleft() for _ in range(len(self._reports))]

    def stop(self) -> None:
        self._stop = True

    def fail(self, error: PlatformError) -> None:
        self._error = error

    def error(self) -> PlatformError | None:
        return self._error
