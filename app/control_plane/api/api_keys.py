"""/platform/v1/api-keys."""

from typing import Annotated, Any, NoReturn

from fastapi import APIRouter, Body, Response
from pydantic import Field

from app.control_plane.api.access import Admin, PlatformDep
from app.control_plane.api.idempotency import OnceDep
from app.control_plane.api.pages import Confirm, IfMatch, PageDep, confirmed
from app.core.errors import Conflict
from app.core.etags import etag_of
from app.core.key_limits import NO_LIMITS, KeyLimits
from app.core.moments import UtcMoment
from app.core.records import ApiKey, Role
from app.core.specs import Spec
from app.core.texts import Line

router = APIRouter(prefix="/v1/api-keys", tags=["api keys"])


class NewKey(Spec):
    """What to issue."""

    description: Annotated[Line, Field(max_length=100)] = ""
    role: Role = "inference"
    endpoints: Annotated[list[Line], Field(min_length=1, max_length=100)] | None = None
    """The only endpoints it may see and call, by ID or name; null: all of the workspace's."""
    member: Annotated[Line, Field(max_length=128)] | None = None
    """The member it is for, by ID or name: it can do no more than they, and ends with them."""
    expires_at: UtcMoment | None = None
    limits: KeyLimits = NO_LIMITS


class KeyChange(Spec):
    """What shall be different; what is left out stays."""

    limits: KeyLimits | None = None
    """null, all of it or one of its fields: no such limit."""

    def update(self) -> dict[str, int | None]:
        """The limits that were given."""
        if self.limits is None and "limits" in self.model_fields_set:
            return NO_LIMITS.model_dump()
        return self.limits.model_dump(exclude_unset=True) if self.limits else {}


def show(key: ApiKey) -> dict[str, Any]:
    """A key as the API gives it: never the key itself."""
    shown = key.model_dump(mode="json", exclude={"workspace", "hash"})
    return {"object": "api_key", **shown, "etag": etag_of(key)}


def shown_already(key_id: str) -> NoReturn:
    """Raises Conflict: what an Idempotency-Key has issued cannot be answered again."""
    raise Conflict(
        f"This Idempotency-Key has issued key {key_id} already, and a key cannot be shown again: where it is lost, "
        "revoke it and issue another with a new Idempotency-Key.",
        "Idempotency-Key",
        "key_shown_already",
    )


@router.post("", status_code=201)
def issue(new: Annotated[NewKey, Body()], caller: Admin, platform: PlatformDep, once: OnceDep) -> dict[str, Any]:
    """Issue a key. `key` is in this answer and nowhere else, ever: also not in that of a repeat."""
    record, key = once.make(
        new,
        lambda proof: platform.keys.issue(
            caller.workspace, new.role, new.description, new.endpoints, new.member, new.expires_at, proof, new.limits
        ),
        shown_already,
    )
    return {**show(record), "key": key}


@router.get("")
def find(caller: Admin, platform: PlatformDep, page: PageDep) -> dict[str, Any]:
    """The workspace's keys, oldest first, without the keys themselves."""
    return page.of(platform.keys.find(caller.workspace), show)


@router.get("/{key_id}")
def get(key_id: str, caller: Admin, platform: PlatformDep, answer: Response) -> dict[str, Any]:
    """One key, without the key itself."""
    key = platform.keys.get(caller.workspace, key_id)
    answer.headers["etag"] = f'"{etag_of(key)}"'
    return show(key)


@router.patch("/{key_id}")
def change(
    key_id: str,
    wish: Annotated[KeyChange, Body()],
    caller: Admin,
    platform: PlatformDep,
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Change a key's limits: every router goes by them within a second."""
    return show(platform.keys.limit(caller.workspace, key_id, wish.update(), if_match))


@router.delete("/{key_id}", status_code=204)
def revoke(key_id: str, caller: Admin, platform: PlatformDep, confirm: Confirm = "") -> None:
    """Revoke a key: every router refuses it within a second."""
    confirmed(confirm)
    platform.keys.revoke(caller.workspace, key_id)
