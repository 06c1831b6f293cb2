"""How many requests a second: a token bucket that is told the time."""


class TokenBucket:
    """Lets `rate` requests a second through, and after a pause as many at once as one second brings (at least one)."""

    def __init__(self, rate: float, now: float):
        self._rate = rate
        self._tokens = self._burst
        self._at = now

    @property
    def _burst(self) -> float:
        return max(1.0, self._rate)

    def take(self, rate: float, now: float) -> float:
        """0 when a request may go now, else in how many seconds one may.

        `now` is in seconds of any clock; `rate` may change from call to call, as units and routers come and go.
        """
        elapsed = max(0.0, now - self._at)
        self._tokens += elapsed * self._rate  # what has passed, at the rate that held
        self._rate, self._at = rate, max(self._at, now)
        self._tokens = min(self._tokens, self._burst)
        if self._tokens >= 1.0 - 1e-9:  # waiting just as long as told is enough, whatever the sums round to
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / rate
