"""Usage: the tokens that each request took, and how they add up by hour. Pure.

An engine tells a request's exact tokens in its last word (app/core/frames.py); a router writes an Entry of it into its
spool (app/router/usage_spool.py); batches of the spool become hourly rows in the registry.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from app.core.reports import Count, Moment

HOUR_S = 3600
BATCH_ROWS = 10_000
"""In one batch, at the most."""
DESCRIBED = 128
"""Characters of a key's description that stay with its usage."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Tokens(_Frozen):
    """Of one answer."""

    prompt_tokens: Count = 0
    """Of the prompt, once, however many choices were made; none while the engine has not read it to its end."""
    cached_tokens: Count = 0
    """Of the prompt's: those that were in the engine's prefix cache."""
    completion_tokens: Count = 0
    """Of all choices together."""


class Account(NamedTuple):
    """Who is charged for what."""

    workspace: str
    key_id: str
    endpoint_id: str


class Sums(Tokens):
    """Of any number of requests."""

    requests: Count = 0
    partial_requests: Count = 0
    """Those of which no engine told the end: their completion tokens are what had passed the router, at the least."""

    def plus(self, other: "Sums") -> "Sums":
        """Both together."""
        mine, others = self.model_dump(), other.model_dump()
        return Sums(**{name: mine[name] + others[name] for name in Sums.model_fields})


class Entry(Sums):
    """A line of a spool: a request that has ended, or, where lines could not be written, the sums of some."""

    workspace: str
    key_id: str
    endpoint_id: str
    at: Moment
    """When the request ended."""
    request_id: str = ""
    number: int = 0
    """Of the request within its router, which a begun entry shares with the one that follows it; 0: of several."""
    begun: bool = False
    """Its answer has begun to go out, and counts as partial should nothing follow in the same file."""

    @property
    def account(self) -> Account:
        return Account(self.workspace, self.key_id, self.endpoint_id)

    @property
    def hour(self) -> int:
        """Since 1970."""
        return int(self.at // HOUR_S)

    def given_up(self) -> "Entry":
        """What a begun entry counts for when the router did not live to see the answer's end."""
        return self.model_copy(update={"begun": False, "requests": 1, "partial_requests": 1})


class UsageRow(Sums):
    """What an hour has taken of an account."""

    workspace: str
    key_id: str
    endpoint_id: str
    hour: int = Field(ge=0, le=4_000_000)
    """Since 1970."""

    @property
    def begins_at(self) -> datetime:
        return datetime.fromtimestamp(self.hour * HOUR_S, UTC)


class UsageBatch(_Frozen):
    """A stretch of a spool. The one who takes it answers up to where it has the spool now."""

    spool: str = Field(min_length=1, max_length=64)
    from_bytes: Count
    to_bytes: Count
    rows: tuple[UsageRow, ...] = Field((), max_length=BATCH_ROWS)


def rows_of(entries: Iterable[Entry]) -> tuple[UsageRow, ...]:
    """The entries, added up by account and hour."""
    found: dict[tuple[Account, int], Sums] = {}
    for entry in entries:
        if entry.requests:
            place = (entry.account, entry.hour)
            found[place] = found[place].plus(entry) if place in found else entry
    return tuple(
        UsageRow(hour=hour, **account._asdict(), **sums.model_dump(include=set(Sums.model_fields)))
        for (account, hour), sums in found.items()
    )


def left_open(entries: Iterable[Entry]) -> list[Entry]:
    """The requests that have begun and of which nothing followed."""
    open_: dict[int, Entry] = {}
    for entry in entries:
        if entry.begun:
            open_[entry.number] = entry
        else:
            open_.pop(entry.number, None)
    return list(open_.values())
