"""Who makes the request that runs now; events and the audit name them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime


@dataclass
class Act:
    """One authenticated request. Threads that work for it share it."""

    workspace: str
    actor: str
    """The ID of the caller's key."""
    request_id: str
    subject: str = ""
    """The record that it is about, once that is known: the one that its last event tells of."""
    ids: dict[str, str] = field(default_factory=dict)
    """Names by which it speaks of records, and the IDs of these."""
    member: str | None = None
    """The ID of the member that the caller's key belongs to."""
    ends_at: datetime | None = None
    """When the caller's key ends."""
    limited: bool = False
    """Whether the caller's key has limits of its own."""


_current: ContextVar[Act | None] = ContextVar("act", default=None)


@contextmanager
def acting(act: Act) -> Iterator[Act]:
    """What happens inside is done by this request."""
    token = _current.set(act)
    try:
        yield act
    finally:
        _current.reset(token)


def meant(name: str, record_id: str) -> None:
    """The request that runs now calls a record by this name."""
    if act := _current.get():
        act.ids[name] = record_id


def within_act(expires_at: datetime | None) -> datetime | None:
    """The end of what the request that runs now grants: whoever has an end themselves gives none beyond it."""
    act = _current.get()
    ends = [end for end in (expires_at, act.ends_at if act else None) if end is not None]
    return min(ends, default=None)


def current_act() -> Act | None:
    """The request that runs now; None where the platform acts by itself."""
    return _current.get()
