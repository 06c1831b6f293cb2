"""API keys: issue, list, revoke; and the first admin key."""

import os
import threading
from datetime import UTC, datetime

from app.core.errors import Conflict, NotFound
from app.core.keys import hash_key, issue_key, visible_prefix, well_formed
from app.core.names import new_id
from app.core.records import DEFAULT_WORKSPACE, ApiKey, Role
from app.settings import Settings
from app.store.database import Registry

ADMIN_KEY_FILE = "admin.key"
ADMIN_KEY_ID = "key-admin"
MAX_LIVE_KEYS = 5
"""Per workspace and role (S3: at most 5)."""


class Keys:
    """The keys of all workspaces."""

    def __init__(self, registry: Registry, lock: threading.RLock):
        self._registry = registry
        self._lock = lock

    def ensure_admin(self, settings: Settings) -> None:
        """Have a working admin key: the given one, else that in HOME/admin.key, which is made when missing.

        Raises ValueError when the given key does not look like one.
        """
        key = settings.admin_key or _read_or_make(settings)
        if not well_formed(key):
            raise ValueError("MODELUNIT_ADMIN_KEY must be 'mu-' and 43 characters of A-Z, a-z, 0-9, '-' and '_'")
        self._registry.put(_record(ADMIN_KEY_ID, key, DEFAULT_WORKSPACE, "admin", "the platform's first key"))

    def issue(self, workspace: str, role: Role, description: str) -> tuple[ApiKey, str]:
        """A new key: its record, and the key itself, which nobody can see again.

        Raises Conflict when the workspace has as many keys of this role as it may.
        """
        with self._lock:
            live = [
                key for key in self._registry.find(ApiKey, workspace=workspace, role=role) if key.id != ADMIN_KEY_ID
            ]
            if len(live) >= MAX_LIVE_KEYS:
                raise Conflict(f"This workspace has {len(live)} live {role} keys already; revoke one first.")
            key = issue_key()
            record = _record(new_id("key", datetime.now(UTC)), key, workspace, role, description)
            self._registry.put(record)
        return record, key

    def find(self, workspace: str) -> list[ApiKey]:
        """A workspace's keys, oldest first."""
        return self._registry.find(ApiKey, workspace=workspace)

    def revoke(self, workspace: str, key_id: str) -> None:
        """End a key. Raises NotFound, and Conflict for the platform's first key."""
        record = self._registry.get(ApiKey, key_id)
        if record is None or record.workspace != workspace:
            raise NotFound(f"There is no API key {key_id}.")
        if key_id == ADMIN_KEY_ID:
            raise Conflict("The platform's first key is replaced by its file or MODELUNIT_ADMIN_KEY, not deleted.")
        self._registry.delete(record)


def _record(key_id: str, key: str, workspace: str, role: Role, description: str) -> ApiKey:
    return ApiKey(
        id=key_id,
        created_at=datetime.now(UTC),
        workspace=workspace,
        role=role,
        hash=hash_key(key),
        prefix=visible_prefix(key),
        description=description,
    )


def _read_or_make(settings: Settings) -> str:
    path = settings.home / ADMIN_KEY_FILE
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        key = issue_key()
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(key + "\n")
        partial.rename(path)
        return key
