"""The version of a wish, which a caller may insist on: `etag` in answers, If-Match in requests."""

import hashlib

from app.core.errors import Conflict
from app.core.records import ApiKey, Endpoint, Member


def etag_of(record: Endpoint | Member | ApiKey) -> str:
    """Another one after each change of the wish, and only then: what is observed does not count."""
    version: object
    if isinstance(record, Endpoint):
        version = record.generation
    else:  # of a key nothing but the limits ever changes by a wish
        version = (record.limits if isinstance(record, ApiKey) else record).model_dump_json()
    return hashlib.sha256(f"{record.id}\0{version}".encode()).hexdigest()[:16]


def require_match(if_match: str | None, etag: str) -> None:
    """Raises Conflict unless If-Match is left out, is `*`, or names this etag, with or without quotation marks."""
    if if_match is None:
        return
    named = {one.strip().removeprefix("W/").strip('"') for one in if_match.split(",")}
    if not named & {"*", etag}:
        raise Conflict(
            "If-Match names another version: it was changed meanwhile. Read it again and repeat the change.",
            "If-Match",
            "etag_mismatch",
        )
