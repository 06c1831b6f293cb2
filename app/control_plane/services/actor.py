"""Who makes the request that runs now; events and the audit name them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Act:
    """One authenticated request. Threads that work for it share it."""

    workspace: str
    actor: str
    """The ID of the caller's key."""
    request_id: str
    subject: str = ""
    """The record that it is about, once that is known: the one that its last event tells of."""


_current: ContextVar[Act | None] = ContextVar("act", default=None)


@contextmanager
def acting(act: Act) -> Iterator[Act]:
    """What happens inside is done by this request."""
    token = _current.set(act)
    try:
        yield act
    finally:
        _current.reset(token)


def current_act() -> Act | None:
    """The request that runs now; None where the platform acts by itself."""
    return _current.get()
