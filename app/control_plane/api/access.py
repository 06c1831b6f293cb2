"""Who calls the control API."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request

from app.control_plane.platform import Platform
from app.core.errors import Forbidden, Unauthorized
from app.core.keys import hash_key, well_formed
from app.core.records import ApiKey


def platform_of(request: Request) -> Platform:
    """The services behind the API."""
    platform: Platform = request.app.state.platform
    return platform


PlatformDep = Annotated[Platform, Depends(platform_of)]


def developer(request: Request, platform: PlatformDep) -> ApiKey:
    """The caller's key. Raises Unauthorized, and Forbidden for a key that may only call endpoints."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Unauthorized("No API key: send the header 'Authorization: Bearer mu-...'.", code="missing_api_key")
    found = platform.registry.find(ApiKey, hash=hash_key(key)) if well_formed(key) else []
    if not found or (found[0].expires_at is not None and found[0].expires_at <= datetime.now(UTC)):
        raise Unauthorized("This API key is not valid: unknown, revoked or expired.")
    if found[0].role == "inference":
        raise Forbidden("This key may call endpoints only; the control API needs role developer or admin.")
    return found[0]


def admin(caller: Annotated[ApiKey, Depends(developer)]) -> ApiKey:
    """The caller's key, which must be an admin's. Raises Forbidden."""
    if caller.role != "admin":
        raise Forbidden("This needs a key with role admin.")
    return caller


Developer = Annotated[ApiKey, Depends(developer)]
Admin = Annotated[ApiKey, Depends(admin)]
