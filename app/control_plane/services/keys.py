"""API keys: issue, list, revoke, recognise; and the first admin key."""

import hmac
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from app.control_plane.services.actor import current_act, within_act
from app.control_plane.services.events import event
from app.control_plane.services.idempotency import Proof, no_proof
from app.control_plane.services.members import Members
from app.core.errors import Conflict, Forbidden, InvalidField, NotFound
from app.core.etags import etag_of, require_match
from app.core.key_limits import NO_LIMITS, KeyLimits
from app.core.keys import (
    RANK,
    as_far_as,
    bearer_hash,
    bounded,
    hash_key,
    is_live,
    issue_key,
    not_valid,
    visible_prefix,
    well_formed,
)
from app.core.moments import require_ahead
from app.core.names import new_id
from app.core.records import DEFAULT_WORKSPACE, ApiKey, Endpoint, Member, Role
from app.settings import Settings
from app.store.database import Registry

ADMIN_KEY_FILE = "admin.key"
ADMIN_KEY_ID = "key-admin"
ENDED_KEPT = 100
"""Of the keys of a workspace whose time has ended, the last so many are still listed."""
USE_NOTED_EVERY = timedelta(minutes=1)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Keys:
    """The keys of all workspaces. Every change ends with `changed()`, which tells the routers."""

    def __init__(
        self,
        registry: Registry,
        members: Members,
        lock: threading.RLock,
        changed: Callable[[], None],
        now: Callable[[], datetime],
        keys_per_role: int,
    ):
        self._registry = registry
        self._members = members
        self._lock = lock
        self._changed = changed
        self._now = now
        self._keys_per_role = keys_per_role
        self._noted: dict[str, datetime] = {}
        """Hash -> the use of that key that was looked at last; of the last minute only."""

    def ensure_admin(self, settings: Settings) -> None:
        """Have a working admin key: the given one, else that in HOME/admin.key, which is made when missing.

        Raises ValueError when the given key does not look like one.
        """
        key = settings.admin_key or _read_or_make(settings)
        if not well_formed(key):
            raise ValueError("MODELUNIT_ADMIN_KEY must be 'mu-' and 43 characters of A-Z, a-z, 0-9, '-' and '_'")
        known = self._registry.get(ApiKey, ADMIN_KEY_ID)
        if known is None or known.hash != hash_key(key):
            record = self._record(key, DEFAULT_WORKSPACE, "admin", "the platform's first key")
            self._registry.put(record.model_copy(update={"id": ADMIN_KEY_ID}))

    def new(self, workspace: str, role: Role, description: str) -> tuple[ApiKey, str]:
        """A new key to be put: its record, and the key itself, which nobody can see again.

        Raises Forbidden for a caller whose own key has limits: each key that it made could take as much again.
        """
        _require_no_limits()
        key = issue_key()
        return self._record(key, workspace, role, description), key

    def issue(
        self,
        workspace: str,
        role: Role,
        description: str,
        endpoints: Sequence[str] | None = None,
        member: str | None = None,
        expires_at: datetime | None = None,
        proof: Proof = no_proof,
        limits: KeyLimits = NO_LIMITS,
    ) -> tuple[ApiKey, str]:
        """Issue a key: its record, and the key itself, which nobody can see again.

        `endpoints` (IDs or names) are the only ones that it may see and call; `member` (ID or name) bounds what it
        may do and for how long. Whoever issues it with a key that ends gives no later end; a member gives keys to
        themselves only.
        Raises InvalidField, Forbidden (also as `new` does), and Conflict when the workspace has as many live keys of
        this role as it may.
        """
        require_ahead(expires_at, self._now())
        record, key = self.new(workspace, role, description)
        act = current_act()
        issuer = act.member if act and act.workspace == workspace else None
        member = member or issuer
        with self._lock:
            owner = self._owner(workspace, member, role) if member is not None else None
            if owner and issuer not in (None, owner.id):
                raise Forbidden("This key is a member's: it issues keys for the same member only.", "member")
            update = {
                "endpoints": self._endpoint_ids(workspace, endpoints) if endpoints is not None else None,
                "member_id": owner.id if owner else None,
                "expires_at": within_act(expires_at),
                "limits": limits,
            }
            record = record.model_copy(update=update)
            self._make_room(workspace, role)
            whose = f" for {owner.name}" if owner else ""
            note = event(workspace, record.id, "issued", f"{role} key {record.prefix}...{whose}")
            self._registry.put(record, note, *proof(record.id))
        self._changed()
        return as_far_as(record, owner), key

    def find(self, workspace: str) -> list[ApiKey]:
        """A workspace's keys, oldest first, each as far as its member's grant goes."""
        return self._bounded(self._registry.find(ApiKey, workspace=workspace))

    def get(self, workspace: str, key_id: str) -> ApiKey:
        """One key. Raises NotFound, and InvalidField for what is a key and not its ID."""
        if well_formed(key_id):
            raise InvalidField(
                "That is the key itself; pass its ID, 'key-...'. Addresses are no secrets: revoke this key by its ID.",
                "key_id",
            )
        record = self._registry.get(ApiKey, key_id)
        if record is None or record.workspace != workspace:
            raise NotFound("There is no such API key.", "key_id")
        (key,) = self._bounded([record])
        return key

    def limit(
        self, workspace: str, key_id: str, update: Mapping[str, int | None], if_match: str | None = None
    ) -> ApiKey:
        """Change a key's limits: those that are named, None takes one away.

        Raises NotFound and InvalidField as `get` does, Forbidden for a caller whose own key has limits, and Conflict:
        changed meanwhile, or the platform's first key, with which all limits can be changed.
        """
        _require_no_limits()
        with self._lock:
            shown = self.get(workspace, key_id)
            require_match(if_match, etag_of(shown))
            limits = shown.limits.model_copy(update=update)
            if limits == shown.limits:
                return shown
            if key_id == ADMIN_KEY_ID:
                raise Conflict("The platform's first key has no limits: issue another one to call endpoints with.")
            (record,) = self._registry.find(ApiKey, id=key_id)  # as it is without its member
            note = event(workspace, key_id, "changed", f"{record.role} key {record.prefix}...: {limits.described()}")
            self._registry.put(record.model_copy(update={"limits": limits}), note)
        self._changed()
        return shown.model_copy(update={"limits": limits})

    def revoke(self, workspace: str, key_id: str) -> None:
        """End a key. Raises NotFound and InvalidField as `get` does, and Conflict for the platform's first key."""
        with self._lock:
            record = self.get(workspace, key_id)
            if key_id == ADMIN_KEY_ID:
                raise Conflict("The platform's first key is replaced by its file or MODELUNIT_ADMIN_KEY, not deleted.")
            note = event(workspace, key_id, "revoked", f"{record.role} key {record.prefix}...")
            self._registry.change(put=[note], delete=[record])
        self._changed()

    def caller(self, authorization: str | None) -> ApiKey:
        """Who calls the control API, from the Authorization header. A malformed key is refused before any query.

        Raises Unauthorized: no bearer key, a malformed, unknown, revoked or expired one.
        """
        wanted = bearer_hash(authorization)
        found = self._bounded(self._registry.find(ApiKey, hash=wanted))
        key = next((key for key in found if hmac.compare_digest(key.hash, wanted)), None)
        if key is None or not is_live(key, self._now()):
            raise not_valid()
        self.used({wanted: self._now()})
        return key

    def holds(self, key: ApiKey) -> bool:
        """Whether a key that was recognised a while ago is still live and still has its role."""
        found = self._bounded(self._registry.find(ApiKey, id=key.id, hash=key.hash))
        return any(is_live(one, self._now()) and RANK[one.role] >= RANK[key.role] for one in found)

    def used(self, moments: Mapping[str, datetime]) -> None:
        """Keys, by their hashes, were used at these moments. Written down at most once a minute for each."""
        now = self._now()
        due = {
            hash: min(moment, now)
            for hash, moment in moments.items()
            if moment - self._noted.get(hash, _LONG_AGO) >= USE_NOTED_EVERY
        }
        if not due:
            return
        with self._lock:  # else a key that is being revoked would be put back
            keys = self._registry.find(ApiKey, hash=list(due))
            later = [
                key.model_copy(update={"last_used_at": due[key.hash]})
                for key in keys
                if due[key.hash] > (key.last_used_at or _LONG_AGO)
            ]
            if later:
                self._registry.put(*later)
            noted = {**self._noted, **due}
            self._noted = {hash: moment for hash, moment in noted.items() if now - moment < USE_NOTED_EVERY}

    def _bounded(self, keys: Sequence[ApiKey]) -> list[ApiKey]:
        """Keys of one workspace, each as far as its member's grant goes."""
        owned = next((key for key in keys if key.member_id is not None), None)
        return bounded(keys, self._members.find(owned.workspace) if owned else [])

    def _owner(self, workspace: str, member: str, role: Role) -> Member:
        try:
            owner = self._members.get(workspace, member)
        except NotFound:
            raise InvalidField("member is not an ID or name of a member of this workspace.", "member") from None
        if RANK[role] > RANK[owner.role]:
            raise InvalidField(f"role {role} is above {owner.role}, the member's own.", "role")
        if owner.expires_at is not None and owner.expires_at <= self._now():
            raise Conflict("This member's time has ended; give them a later end first.", "member")
        return owner

    def _endpoint_ids(self, workspace: str, wanted: Sequence[str]) -> tuple[str, ...]:
        live = [e for e in self._registry.find(Endpoint, workspace=workspace, deleted_at=None) if e.state != "deleting"]
        known = {endpoint.spec.name: endpoint.id for endpoint in live} | {endpoint.id: endpoint.id for endpoint in live}
        for place, one in enumerate(wanted):
            if one not in known:
                raise InvalidField(
                    f"endpoints[{place}] is not an ID or name of an endpoint of this workspace.", f"endpoints[{place}]"
                )
        return tuple(dict.fromkeys(known[one] for one in wanted))

    def _make_room(self, workspace: str, role: Role) -> None:
        """Raises Conflict when there are too many live keys; forgets ended ones that are too many."""
        now = self._now()
        keys = self.find(workspace)
        live = sum(key.role == role and key.id != ADMIN_KEY_ID and is_live(key, now) for key in keys)
        if live >= self._keys_per_role:
            raise Conflict(
                f"This workspace has {live} live {role} keys already, and may have {self._keys_per_role}: "
                "revoke one first, or raise keys_per_role in the control plane's args."
            )
        ended = sorted((key for key in keys if not is_live(key, now)), key=lambda key: key.expires_at or now)
        self._registry.delete(*ended[: max(0, len(ended) - ENDED_KEPT)])

    def _record(self, key: str, workspace: str, role: Role, description: str) -> ApiKey:
        now = self._now()
        return ApiKey(
            id=new_id("key", now),
            created_at=now,
            workspace=workspace,
            role=role,
            hash=hash_key(key),
            prefix=visible_prefix(key),
            description=description,
            expires_at=within_act(None),
        )


def _require_no_limits() -> None:
    act = current_act()
    if act and act.limited:
        raise Forbidden("This key has limits of its own: it issues no keys, and changes no key's limits.")


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
