"""Requests a second for each endpoint: this router's share of what all routers together let through."""

import math
import time
from collections.abc import Callable

from app.core.errors import QpsExceeded
from app.core.rate import TokenBucket
from app.core.routing import Route, RoutingTable


class Limits:
    """Token buckets of the endpoints that have a limit and were called."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}
        self._number = 0

    def admit(self, route: Route, table: RoutingTable) -> None:
        """Let a request through. Raises QpsExceeded, which says when to try again."""
        if route.qps is None:
            return
        if table.number != self._number:  # those of endpoints that are gone are forgotten
            self._buckets = {name: bucket for name, bucket in self._buckets.items() if name in table.routes}
            self._number = table.number
        share = route.qps / max(1, table.routers)
        bucket = self._buckets.get(route.endpoint_id)
        if bucket is None:
            bucket = self._buckets[route.endpoint_id] = TokenBucket(share, self._clock())
        wait_s = bucket.take(share, self._clock())
        if wait_s:
            raise QpsExceeded(
                f"Endpoint {route.endpoint_id} takes {route.qps:g} requests a second now: its limits.qps_per_unit "
                "times its running units.",
                retry_after_s=math.ceil(wait_s),
            )
