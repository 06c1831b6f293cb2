"""What endpoints and keys take: this router's share of what all routers together let through."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from app.core.errors import InvalidField, PlatformError, QpsExceeded, TooManyRequests
from app.core.key_limits import NO_LIMITS, REQUESTS_AT_ONCE, TOKENS_AT_ONCE
from app.core.rate import Rate, TokenBucket
from app.core.rate_headers import Kind, Standing, rate_headers
from app.core.routing import Grant, Route, RoutingTable
from app.router.stream import GIVEN_UP


@dataclass(frozen=True, slots=True)
class _Applied:
    """One limit as it holds for one request; who is turned away is told `told`."""

    kind: Kind
    a_minute: float
    bucket: TokenBucket
    cost: float
    error: type[TooManyRequests]
    told: str

    def wait_s(self, requests: int) -> float:
        return self.bucket.wait_s(self.cost * requests)


class Limits:
    """Buckets of the endpoints and keys that have limits and were used; those that are gone are forgotten."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._number = 0
        self._buckets: dict[tuple[str, Kind], TokenBucket] = {}
        """By the ID of the endpoint or key."""
        self._under_way: Counter[str] = Counter()
        """Requests by key, of keys for which these are limited."""

    def of(self, grant: Grant, route: Route, table: RoutingTable, tokens: int) -> "Claim":
        """What a request to this endpoint takes of all limits; `tokens` is what it is reckoned to need."""
        self._forget(table)
        routers, limits, key = max(1, table.routers), grant.limits, f"This key ({grant.key_id})"
        applied = []
        if (qps := route.qps) is not None:
            bucket = self._bucket(route.endpoint_id, "requests", Rate.a_second(qps, routers))
            told = (
                f"Endpoint {route.endpoint_id} takes {qps:g} requests a second now: its limits.qps_per_unit "
                "times its running units."
            )
            applied.append(_Applied("requests", qps * 60, bucket, 1, QpsExceeded, told))
        if (limit := limits.requests_per_minute) is not None:
            bucket = self._bucket(grant.key_id, "requests", Rate.a_minute(limit, REQUESTS_AT_ONCE, routers))
            told = f"{key} takes {limit} requests a minute: its limits.requests_per_minute."
            applied.append(_Applied("requests", limit, bucket, 1, TooManyRequests, told))
        if (limit := limits.tokens_per_minute) is not None:
            bucket = self._bucket(grant.key_id, "tokens", Rate.a_minute(limit, TOKENS_AT_ONCE, routers))
            told = (
                f"{key} takes {limit} tokens a minute: its limits.tokens_per_minute. This request counts as {tokens} "
                "until it is answered: its prompt, and max_tokens for each answer."
            )
            applied.append(_Applied("tokens", limit, bucket, tokens, TooManyRequests, told))
        return Claim(grant, applied, routers, self._under_way)

    def _bucket(self, owner: str, kind: Kind, rate: Rate) -> TokenBucket:
        now = self._clock()
        bucket = self._buckets.get((owner, kind))
        if bucket is None:
            bucket = self._buckets[owner, kind] = TokenBucket(rate, now)
        bucket.follow(rate, now)
        return bucket

    def _forget(self, table: RoutingTable) -> None:
        if table.number <= self._number:
            return
        self._number = table.number
        limited = {grant.key_id for grant in table.grants.values() if grant.limits != NO_LIMITS}
        self._buckets = {
            of: bucket for of, bucket in self._buckets.items() if of[0] in table.routes or of[0] in limited
        }


class Claim:
    """What one request takes of the limits. Once taken, it is a context that lasts as long as the request."""

    def __init__(self, grant: Grant, applied: list[_Applied], routers: int, under_way: Counter[str]):
        self._grant = grant
        self._applied = applied
        self._routers = routers
        self._under_way = under_way
        self._unsettled = next((limit for limit in applied if limit.kind == "tokens"), None)

    @property
    def at_once(self) -> float:
        """How many such requests may come together at the most, when nothing else is under way."""
        most = [limit.bucket.burst for limit in self._applied if limit.kind == "requests"]
        share = self._grant.limits.share_under_way(self._routers)
        return min([*most, *([] if share is None else [share])], default=math.inf)

    def require_together(self, requests: int, param: str) -> None:
        """Whether so many may come together, before the first does.

        Raises InvalidField, which names `param`, where that can never be, and TooManyRequests where it cannot be now.
        """
        if requests > self.at_once:
            raise InvalidField(
                f"{param} has {requests}, which is more than may come at once: with the limits of this key "
                f"({self._grant.key_id}) and of the endpoint, {math.floor(self.at_once)} at the most. "
                "Send fewer in a call.",
                param,
            )
        self._require(requests)

    def take(self) -> None:
        """Take of every limit, or of none. Raises TooManyRequests, which tells of the one that lasts longest."""
        self._require(1)
        for limit in self._applied:
            limit.bucket.take(limit.cost)

    def _require(self, requests: int) -> None:
        tightest = max(self._applied, key=lambda limit: limit.wait_s(requests), default=None)
        if tightest and (wait_s := tightest.wait_s(requests)):
            raise tightest.error(tightest.told, retry_after_s=math.ceil(wait_s))
        limits, key_id = self._grant.limits, self._grant.key_id
        share = limits.share_under_way(self._routers)
        if share is not None and self._under_way[key_id] + requests > share:
            raise TooManyRequests(
                f"This key ({key_id}) may have {limits.concurrency} requests under way at once: its limits.concurrency."
            )

    def settle(self, tokens: int) -> None:
        """The engine has counted: so many tokens it took in truth. What comes first counts."""
        if self._unsettled:
            self._unsettled.bucket.give_back(self._unsettled.cost - tokens)
            self._unsettled = None

    def headers(self) -> list[tuple[str, str]]:
        """What the answer says of the limits, whether it was let through or not."""
        return rate_headers(
            Standing(limit.kind, limit.a_minute, limit.bucket.level * self._routers, limit.bucket.full_in_s)
            for limit in self._applied
        )

    def __enter__(self) -> "Claim":
        if self._grant.limits.concurrency is not None:
            self._under_way[self._grant.key_id] += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """A request that failed before its answer began takes no tokens, unless it was settled.

        Where the router gave it up, its engine may have worked: what that says is waited for.
        """
        if self._grant.limits.concurrency is not None:
            self._under_way[self._grant.key_id] -= 1
            if not self._under_way[self._grant.key_id]:
                del self._under_way[self._grant.key_id]
        if isinstance(error, PlatformError) and not isinstance(error, GIVEN_UP):
            self.settle(0)
