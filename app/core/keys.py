"""API keys: `mu-` and 32 random bytes. The key is shown once; records keep its hash and its first characters."""

import hashlib
import re
import secrets

_FORM = re.compile(r"mu-[A-Za-z0-9_-]{43}")


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
