"""Wall clocks that tests set forward."""

from datetime import UTC, datetime, timedelta


class WallClock:
    """The time, and what tests have added to it."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def jump(self, **by: float) -> None:
        """Go on by days=, hours=, minutes=, seconds=."""
        self._ahead += timedelta(**by)

    def later(self, **by: float) -> str:
        """A moment after now, as callers write it."""
        return (self() + timedelta(**by)).isoformat()


class StandingClock:
    """Stands still until it is told otherwise."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def __call__(self) -> datetime:
        return self.moment

    def jump(self, **by: float) -> datetime:
        """Go on by days=, hours=, minutes=, seconds=; the new time."""
        self.moment += timedelta(**by)
        return self.moment
