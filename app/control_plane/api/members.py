"""/platform/v1/members."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from pydantic import Field

from app.control_plane.api.access import Admin, PlatformDep
from app.control_plane.api.idempotency import OnceDep
from app.control_plane.api.pages import Confirm, IfMatch, PageDep, confirmed
from app.core.etags import etag_of
from app.core.moments import UtcMoment
from app.core.records import Member, Role
from app.core.specs import Spec
from app.core.texts import Line

router = APIRouter(prefix="/v1/members", tags=["members"])


class NewMember(Spec):
    """Whom to let in."""

    name: Annotated[Line, Field(min_length=1, max_length=128)]
    role: Role
    expires_at: UtcMoment | None = None
    """null: for ever."""


class MemberChange(Spec):
    """What shall be different; what is left out stays."""

    role: Role | None = None
    expires_at: UtcMoment | None = None
    """null: for ever."""

    def update(self) -> dict[str, Any]:
        """The fields that were given."""
        given = self.model_dump(exclude_unset=True)
        return {name: value for name, value in given.items() if name != "role" or value is not None}


def _show(member: Member) -> dict[str, Any]:
    return {"object": "member", **member.model_dump(mode="json", exclude={"workspace"}), "etag": etag_of(member)}


@router.post("", status_code=201)
def add(new: Annotated[NewMember, Body()], caller: Admin, platform: PlatformDep, once: OnceDep) -> dict[str, Any]:
    """Let somebody use the workspace, in a role and until a date; then issue keys for them."""
    member = once.make(
        new,
        lambda proof: platform.members.add(caller.workspace, new.name, new.role, new.expires_at, proof),
        lambda member_id: platform.members.get(caller.workspace, member_id),
    )
    return _show(member)


@router.get("")
def find(caller: Admin, platform: PlatformDep, page: PageDep) -> dict[str, Any]:
    """The workspace's members, oldest first."""
    return page.of(platform.members.find(caller.workspace), _show)


@router.get("/{member_id}")
def get(member_id: str, caller: Admin, platform: PlatformDep, answer: Response) -> dict[str, Any]:
    """One member, by ID or name."""
    member = platform.members.get(caller.workspace, member_id)
    answer.headers["etag"] = f'"{etag_of(member)}"'
    return _show(member)


@router.patch("/{member_id}")
def change(
    member_id: str,
    wish: Annotated[MemberChange, Body()],
    caller: Admin,
    platform: PlatformDep,
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Change a member's role or end, and with it what their keys may do."""
    return _show(platform.members.change(caller.workspace, member_id, wish.update(), if_match))


@router.delete("/{member_id}", status_code=204)
def remove(member_id: str, caller: Admin, platform: PlatformDep, confirm: Confirm = "") -> None:
    """Take a member away: every router refuses their keys within a second."""
    confirmed(confirm)
    platform.members.remove(caller.workspace, member_id)


@router.delete("", status_code=204)
def clear(caller: Admin, platform: PlatformDep, confirm: Confirm = "") -> None:
    """Take every member away, and revoke their keys."""
    confirmed(confirm)
    platform.members.clear(caller.workspace)
