"""Moments as callers write them: RFC 3339 with a time zone; we keep UTC."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BeforeValidator

from app.core.errors import InvalidField


def _in_utc(value: object) -> datetime:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("a time with a time zone is needed, such as 2026-01-31T09:30:00Z")


UtcMoment = Annotated[datetime, BeforeValidator(_in_utc)]


def require_ahead(expires_at: datetime | None, now: datetime) -> None:
    """Raises InvalidField for an end that has passed."""
    if expires_at is not None and expires_at <= now:
        raise InvalidField("expires_at has passed already; a later time is needed.", "expires_at")
