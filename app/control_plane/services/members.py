"""Members: who may use a workspace, in which role and until when. Keys issued for a member end with them."""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from app.control_plane.services.actor import current_act, meant, within_act
from app.control_plane.services.events import event
from app.control_plane.services.idempotency import Proof, no_proof
from app.core.errors import Conflict, Forbidden, NotFound
from app.core.etags import etag_of, require_match
from app.core.moments import require_ahead
from app.core.names import new_id
from app.core.records import ApiKey, Member, Role
from app.store.database import Registry

MAX_MEMBERS = 50
"""Per workspace (S3: at most 50 grants)."""


class Members:
    """The members of all workspaces. Every change ends with `changed()`, which tells the routers."""

    def __init__(
        self,
        registry: Registry,
        lock: threading.RLock,
        changed: Callable[[], None],
        now: Callable[[], datetime],
    ):
        self._registry = registry
        self._lock = lock
        self._changed = changed
        self._now = now

    def add(
        self, workspace: str, name: str, role: Role, expires_at: datetime | None, proof: Proof = no_proof
    ) -> Member:
        """Let somebody use the workspace, for no longer than whoever lets them.

        Raises InvalidField, and Conflict: name taken, too many.
        """
        now = self._now()
        require_ahead(expires_at, now)
        end = within_act(expires_at)
        member = Member(
            id=new_id("mem", now), created_at=now, workspace=workspace, name=name, role=role, expires_at=end
        )
        with self._lock:
            others = self.find(workspace)
            if any(other.name == name for other in others):
                raise Conflict(f"There is a member named {name} already.", "name")
            if len(others) >= MAX_MEMBERS:
                raise Conflict(f"This workspace has {len(others)} members already, and may have {MAX_MEMBERS}.")
            added = event(workspace, member.id, "added", _grant(member))
            self._registry.put(member, added, *proof(member.id))
        return member

    def find(self, workspace: str) -> list[Member]:
        """A workspace's members, oldest first."""
        return self._registry.find(Member, workspace=workspace)

    def get(self, workspace: str, name_or_id: str) -> Member:
        """A member by ID or name. Raises NotFound."""
        found = self._registry.find(Member, workspace=workspace, id=name_or_id) or self._registry.find(
            Member, workspace=workspace, name=name_or_id
        )
        if not found:
            raise NotFound("There is no such member.", "member_id")
        meant(name_or_id, found[0].id)
        return found[0]

    def change(self, workspace: str, name_or_id: str, update: dict[str, Any], if_match: str | None = None) -> Member:
        """Change `role` or `expires_at`, for their keys too; the end is bounded as in `add`.

        Raises NotFound, Conflict, InvalidField, and Forbidden for a caller who is this member.
        """
        require_ahead(update.get("expires_at"), self._now())
        if "expires_at" in update:
            update = {**update, "expires_at": within_act(update["expires_at"])}
        with self._lock:
            member = self.get(workspace, name_or_id)
            if (act := current_act()) and act.member == member.id:
                raise Forbidden("This key is this member's own: somebody else must change what they may do.")
            require_match(if_match, etag_of(member))
            changed = member.model_copy(update=update)
            if changed != member:
                self._registry.put(changed, event(workspace, member.id, "changed", _grant(changed)))
        self._changed()
        return changed

    def remove(self, workspace: str, name_or_id: str) -> None:
        """Take a member away and revoke their keys. Raises NotFound."""
        with self._lock:
            self._remove([self.get(workspace, name_or_id)])
        self._changed()

    def clear(self, workspace: str) -> None:
        """Take every member away and revoke their keys."""
        with self._lock:
            self._remove(self.find(workspace))
        self._changed()

    def _remove(self, members: Sequence[Member]) -> None:
        keys = self._registry.find(ApiKey, member_id=[member.id for member in members])
        notes = [
            event(key.workspace, key.id, "revoked", f"{key.role} key {key.prefix}...: its member left") for key in keys
        ]
        notes += [event(member.workspace, member.id, "removed", f"{member.name} has left") for member in members]
        self._registry.change(put=notes, delete=[*members, *keys])


def _grant(member: Member) -> str:
    end = f"until {member.expires_at:%Y-%m-%d %H:%M} UTC" if member.expires_at else "without an end"
    return f"{member.name}: {member.role} {end}"
