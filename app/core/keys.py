"""API keys: `mu-` and 32 random bytes. The key is shown once; records keep its hash and its first characters."""

import hashlib
import re
import secrets
from collections.abc import Iterable
from datetime import datetime

from app.core.errors import Unauthorized
from app.core.records import DEFAULT_WORKSPACE, ApiKey, Member, Role

_FORM = re.compile(r"mu-[A-Za-z0-9_-]{43}")

RANK: dict[Role, int] = {"inference": 0, "developer": 1, "admin": 2}
"""Each role may do all that the ones below it may."""


def issue_key() -> str:
    """A new key with 256 random bits."""
    return f"mu-{secrets.token_urlsafe(32)}"


def well_formed(key: str) -> bool:
    """Whether `key` can be one of ours; anything else is refused before any look-up."""
    return _FORM.fullmatch(key) is not None


def hash_key(key: str) -> str:
    """SHA-256 in hex: enough for a random key, which no dictionary lists."""
    return hashlib.sha256(key.encode()).hexdigest()


def visible_prefix(key: str) -> str:
    """What lists show, so that a person can tell keys apart."""
    return key[:9]


def bearer_hash(authorization: str | None) -> str:
    """The hash of the key in an Authorization header.

    Raises Unauthorized: there is no bearer key, or it is malformed.
    """
    scheme, _, key = (authorization or "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Unauthorized("No API key: send the header 'Authorization: Bearer mu-...'.", code="missing_api_key")
    if not well_formed(key):
        raise not_valid()
    return hash_key(key)


def not_valid() -> Unauthorized:
    """What every key that cannot be used is told, whatever is wrong with it."""
    return Unauthorized("This API key is not valid: unknown, revoked or expired.")


def is_live(key: ApiKey, now: datetime) -> bool:
    """Whether its time has not ended."""
    return key.expires_at is None or now < key.expires_at


def covers(key: ApiKey, endpoint_id: str) -> bool:
    """Whether its holder may see and call this endpoint of its workspace."""
    return key.endpoints is None or endpoint_id in key.endpoints


def is_admin(key: ApiKey) -> bool:
    """Whether its holder rules the workspace; one who may see some endpoints only does not."""
    return key.role == "admin" and key.endpoints is None


def is_platform_admin(key: ApiKey) -> bool:
    """Whether its holder rules the platform: an admin of the first workspace."""
    return is_admin(key) and key.workspace == DEFAULT_WORKSPACE


def as_far_as(key: ApiKey, member: Member | None) -> ApiKey:
    """A key as its member's grant bounds it: no higher role and no later end.

    A member's key without its member has ended; a key that is no member's stays as it is.
    """
    if key.member_id is None:
        return key
    if member is None:
        return key.model_copy(update={"expires_at": key.created_at})
    ends = [end for end in (key.expires_at, member.expires_at) if end is not None]
    role = min(key.role, member.role, key=RANK.__getitem__)
    return key.model_copy(update={"role": role, "expires_at": min(ends, default=None)})


def bounded(keys: Iterable[ApiKey], members: Iterable[Member]) -> list[ApiKey]:
    """Each key as far as its own member's grant goes; `members` are all that they may belong to."""
    by_id = {member.id: member for member in members}
    return [as_far_as(key, by_id.get(key.member_id or "")) for key in keys]
