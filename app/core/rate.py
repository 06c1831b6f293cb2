"""How much goes through over time: token buckets that are told the time. They count requests, or an engine's tokens."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """What a bucket lets through: so much a second, and after a pause `burst` at once."""

    per_s: float
    burst: float

    @classmethod
    def a_second(cls, limit: float, routers: int) -> "Rate":
        """One router's share of so many a second; at once as many as one second brings.

        Over a minute in which more come than may, that is 61/60 of the limit at the most. Each router lets one
        through at once, however small its share is.
        """
        share = limit / routers
        return cls(share, max(1.0, share))

    @classmethod
    def a_minute(cls, limit: float, at_once: float, routers: int) -> "Rate":
        """One router's share of so many a minute, which come evenly, not all at the minute's beginning.

        At once it is what one second brings, and for limits that are small so many (`at_once`), or the whole limit.
        So what goes through in any minute is the limit and that at the most.
        """
        return cls(limit / 60 / routers, max(1.0, max(limit / 60, min(limit, at_once)) / routers))


class TokenBucket:
    """Begins full. What is taken may be more than there is: then nothing goes until that has been made up for."""

    def __init__(self, rate: Rate, now: float):
        self._rate = rate
        self._at = now
        self._level = rate.burst

    @property
    def burst(self) -> float:
        """How much may go at once after a pause."""
        return self._rate.burst

    @property
    def level(self) -> float:
        """How much may go now; below 0: more went."""
        return self._level

    @property
    def full_in_s(self) -> float:
        """In how many seconds it is full, if nothing goes meanwhile."""
        return (self._rate.burst - self._level) / self._rate.per_s

    def follow(self, rate: Rate, now: float) -> None:
        """Add what the time has brought, at the rate that held; from now on `rate` holds.

        `now` is in seconds of any clock. A rate that rises gives nothing at once.
        """
        self._level += max(0.0, now - self._at) * self._rate.per_s
        self._rate, self._at = rate, max(self._at, now)
        self._level = min(self._level, rate.burst)

    def wait_s(self, cost: float = 1.0) -> float:
        """0 when so much may go now, else in how many seconds it may; more than fits may go when it is full."""
        missing = min(cost, self._rate.burst) - self._level
        if missing <= 1e-8 * self._rate.burst:  # waiting just as long as told is enough, whatever the sums round to
            return 0.0
        return missing / self._rate.per_s

    def take(self, cost: float = 1.0) -> None:
        """Let so much through, whether it may go or not."""
        self._level -= cost

    def give_back(self, amount: float) -> None:
        """What was taken was so much too much; below 0: it was too little."""
        self._level = min(self._level + amount, self._rate.burst)
