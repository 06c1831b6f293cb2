"""What answers say of the limits that hold for a request, as OpenAI's do: `x-ratelimit-limit-requests` and so on."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["requests", "tokens"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a limit stands: of so many a minute, so many would be let through now; `reset_s` until it is as new."""

    kind: Kind
    limit: float
    remaining: float
    reset_s: float


def rate_headers(standings: Iterable[Standing]) -> list[tuple[str, str]]:
    """The headers that tell of these limits; of several of one kind the one that leaves the least.

    Limits are told by the minute, also those that hold for each second.
    """
    tightest: dict[Kind, Standing] = {}
    for one in standings:
        other = tightest.get(one.kind)
        if other is None or (one.remaining, one.limit) < (other.remaining, other.limit):
            tightest[one.kind] = one
    return [header for one in tightest.values() for header in _told(one)]


def _told(one: Standing) -> list[tuple[str, str]]:
    remaining = math.floor(min(max(0.0, one.remaining), max(1.0, one.limit)) + 1e-6)
    return [
        (f"x-ratelimit-limit-{one.kind}", str(max(1, round(one.limit)))),
        (f"x-ratelimit-remaining-{one.kind}", str(remaining)),
        (f"x-ratelimit-reset-{one.kind}", span(one.reset_s)),
    ]


def span(seconds: float) -> str:
    """A span of time as OpenAI writes it, such as `120ms`, `1s`, `6m0s` or `1h0m5s`; rounded up."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if milliseconds <= 0:
        return "0s"
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, seconds = divmod(-(-milliseconds // 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else "") + f"{seconds}s"
