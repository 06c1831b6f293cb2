"""Who calls the control API. Every request is refused unless its key is known; what it may do depends on the role."""

from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from app.control_plane.platform import Platform
from app.control_plane.services.actor import Act, acting
from app.control_plane.services.keys import Keys
from app.core.errors import BadRequest, Forbidden, NotFound
from app.core.key_limits import NO_LIMITS
from app.core.keys import covers, is_admin, is_platform_admin
from app.core.records import ApiKey
from app.web import header, request_id

OPEN_PATHS = {"/openapi.json"}
"""What strangers may read."""
PATH_LIMIT = 1024
"""Characters."""


class Authenticated:
    """ASGI middleware: finds out who calls before anything else is looked at, and that is who acts from here on."""

    def __init__(self, app: ASGIApp, keys: Keys):
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _route_path(scope) in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        caller = await run_in_threadpool(self._keys.caller, header(scope, "authorization"))
        if len(scope["path"]) > PATH_LIMIT:
            raise NotFound("There is nothing at an address of this length.")  # errors repeat what was not found
        if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
            raise BadRequest("The address must not contain a NUL character.")  # PostgreSQL has no place for one
        scope["state"]["caller"] = caller
        act = Act(
            caller.workspace,
            caller.id,
            request_id(scope),
            member=caller.member_id,
            ends_at=caller.expires_at,
            limited=caller.limits != NO_LIMITS,
        )
        with acting(act):
            await self._app(scope, receive, send)


def _route_path(scope: Scope) -> str:
    """The path without the prefix that Serve put this application under."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def platform_of(request: Request) -> Platform:
    """The services behind the API."""
    platform: Platform = request.app.state.platform
    return platform


PlatformDep = Annotated[Platform, Depends(platform_of)]


def developer(request: Request) -> ApiKey:
    """The caller's key.

    Raises Forbidden for a key that may only call endpoints, and NotFound for an `endpoint_id` outside the key's list.
    """
    caller: ApiKey = request.state.caller
    if caller.role == "inference":
        raise Forbidden("This key may call endpoints only; the control API needs role developer or admin.")
    endpoint_id = request.path_params.get("endpoint_id")
    if endpoint_id is not None and not covers(caller, endpoint_id):
        raise NotFound(f"There is no endpoint {endpoint_id}.")  # in the words for one that does not exist
    return caller


Developer = Annotated[ApiKey, Depends(developer)]


def unlimited(caller: Developer) -> ApiKey:
    """The caller's key, which must not be limited to some endpoints: what it wants concerns others too.

    Raises Forbidden.
    """
    if caller.endpoints is not None:
        raise Forbidden(
            "This key is for some endpoints only: it makes no others, changes no models or jobs, and reads no job logs."
        )
    return caller


def admin(caller: Developer) -> ApiKey:
    """The caller's key, which must be that of an admin of the whole workspace. Raises Forbidden."""
    if not is_admin(caller):
        raise Forbidden("This needs a key with role admin that is not limited to some endpoints.")
    return caller


def platform_admin(caller: Developer) -> ApiKey:
    """The caller's key, which must be that of an admin of the first workspace. Raises Forbidden."""
    if not is_platform_admin(caller):
        raise Forbidden("This needs a key with role admin of the workspace default.")
    return caller


Unlimited = Annotated[ApiKey, Depends(unlimited)]
Admin = Annotated[ApiKey, Depends(admin)]
PlatformAdmin = Annotated[ApiKey, Depends(platform_admin)]
