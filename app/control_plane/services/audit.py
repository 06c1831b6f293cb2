"""The audit: every request that wanted to change something. Entries are only added."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from app.control_plane.services.actor import Act
from app.core.errors import Forbidden
from app.core.keys import is_platform_admin
from app.core.names import new_id
from app.core.records import ApiKey, AuditEntry
from app.store.database import Registry

log = logging.getLogger("ray.serve")


def audit_entry(act: Act, action: str, subject: str, status: int) -> AuditEntry:
    """What a request wanted and how it was answered, ready to be put."""
    now = datetime.now(UTC)
    return AuditEntry(
        id=new_id("aud", now, random_chars=10),  # one must never meet another's: it could not replace it
        created_at=now,
        workspace=act.workspace,
        actor=act.actor,
        request_id=act.request_id,
        action=action,
        subject=subject,
        status=status,
    )


class Audit:
    """The audit of all workspaces; it outlives them."""

    def __init__(self, registry: Registry):
        self._registry = registry

    def write(self, act: Act, action: str, subject: str, status: int) -> None:
        """Add what a request wanted and how it was answered. What cannot be added is in the log."""
        entry = audit_entry(act, action, subject, status)
        try:
            self._add(entry)
        except Exception:
            log.error("not in the audit: %s %s %d (request %s)", act.actor, action, status, act.request_id)
            raise

    def _add(self, entry: AuditEntry) -> None:
        try:
            self._registry.put(entry)
        except Exception:  # what it tells of is done, so it is worth a second try
            if self._registry.get(AuditEntry, entry.id) is None:
                self._registry.put(entry)

    def find(self, caller: ApiKey, *, workspace: str | None = None, **filters: Any) -> Sequence[AuditEntry]:
        """A workspace's entries, oldest first: the caller's own, or any for the platform's admins.

        `filters` are fields of entries and the arguments of Registry.find.
        Raises Forbidden, and ValueError as Registry.find does.
        """
        if workspace not in (None, caller.workspace) and not is_platform_admin(caller):
            raise Forbidden("Only the platform's admins (role admin, workspace default) read other workspaces' audit.")
        return self._registry.find(AuditEntry, workspace=workspace or caller.workspace, **filters)
