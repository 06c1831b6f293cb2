"""Events: what happened to a record, for people to read."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from app.control_plane.services.actor import current_act
from app.core.names import new_id
from app.core.records import ApiKey, Event
from app.store.database import Registry

MESSAGE_LIMIT = 1000


def event(workspace: str, subject: str, kind: str, message: str) -> Event:
    """An event that happened now, ready to be put; within a request it is that caller's doing."""
    now = datetime.now(UTC)
    act = current_act()
    if act:
        act.subject = subject
    return Event(
        id=new_id("evt", now, random_chars=10),  # many come at once, and one must not replace another
        created_at=now,
        workspace=workspace,
        subject=subject,
        kind=kind,
        message=message[:MESSAGE_LIMIT],
        actor=act.actor if act else "platform",
        request_id=act.request_id if act else "",
    )


class Events:
    """The events of all workspaces, to be read."""

    def __init__(self, registry: Registry):
        self._registry = registry

    def find(self, caller: ApiKey, *, subject: str | None = None, **filters: Any) -> Sequence[Event]:
        """What the caller may see of its workspace's events, oldest first.

        `filters` are fields of events and the arguments of Registry.find. A key that is limited to some endpoints sees
        what happened to these. Raises ValueError as Registry.find does.
        """
        if subject is not None:
            filters["subject"] = subject
        if caller.endpoints is not None:
            filters["subject"] = [one for one in caller.endpoints if subject in (None, one)]
        return self._registry.find(Event, workspace=caller.workspace, **filters)
