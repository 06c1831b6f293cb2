"""How often each key may ask for changes: every one leaves an entry in the audit, which stays for long."""

from collections import OrderedDict
from collections.abc import Callable

from app.core.errors import TooManyRequests
from app.core.rate import Rate, TokenBucket

MAX_BUCKETS = 10_000
"""The one that was used longest ago is forgotten first; it is full again by then."""


class Pace:
    """One token bucket for each key that was used lately. For one thread."""

    def __init__(self, changes_per_s: int, clock: Callable[[], float]):
        self._rate = Rate.a_second(changes_per_s, routers=1)
        self._clock = clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, key_id: str) -> None:
        """Let a request with this key through. Raises TooManyRequests; a second later it would go."""
        now = self._clock()
        bucket = self._buckets.pop(key_id, None) or TokenBucket(self._rate, now)
        self._buckets[key_id] = bucket
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        bucket.follow(self._rate, now)
        if bucket.wait_s():
            raise TooManyRequests(f"This key may ask for {self._rate.per_s:g} changes a second; try again later.")
        bucket.take()
