"""Events: what happened to a record, for people to read."""

from datetime import UTC, datetime

from app.core.names import new_id
from app.core.records import Event
from app.store.database import Registry

MESSAGE_LIMIT = 1000


def event(workspace: str, subject: str, kind: str, message: str) -> Event:
    """An event that happened now, ready to be put."""
    now = datetime.now(UTC)
    message = message[:MESSAGE_LIMIT]
    return Event(
        id=new_id("evt", now), created_at=now, workspace=workspace, subject=subject, kind=kind, message=message
    )


def events_of(registry: Registry, subject: str) -> list[Event]:
    """A record's events, oldest first."""
    return registry.find(Event, subject=subject)
