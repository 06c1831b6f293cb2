"""`modelunit keys`, `members` and `workspaces`: who may do what."""

from typing import Annotated, Any

import typer

from app.cli.api import Api, given, segment
from app.cli.terminal import AsJson, Confirm, commands, errors, show, show_done
from app.cli.times import ahead

keys = commands("API keys.")
members = commands("Members: whom the workspace's admins let in, in a role and until a date.")
workspaces = commands("Workspaces, for the platform's admins.")

_ROLES = "admin, developer (all but keys and members) or inference (calls endpoints only)."
Role = Annotated[str, typer.Option(help=_ROLES)]
Expires = Annotated[str | None, typer.Option(metavar="TIME", help="Such as 30d, or a moment; left out: never.")]
RequestsPerMinute = Annotated[int | None, typer.Option(help="Requests a minute, over all endpoints.")]
TokensPerMinute = Annotated[int | None, typer.Option(help="Tokens a minute, of prompts and answers.")]
Concurrency = Annotated[int | None, typer.Option(help="Requests under way at once.")]
WhichKey = Annotated[str, typer.Argument(metavar="KEY", help="Its ID, such as key-...")]
WhichMember = Annotated[str, typer.Argument(metavar="MEMBER", help="A member's ID or name.")]


@keys.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List the workspace's keys, without the keys themselves. Meant where no command is named."""
    columns = ("id", "prefix", "role", "description", "endpoints", "limits", "member_id", "expires_at", "last_used_at")
    rows = Api().list("api-keys")
    if not as_json:
        rows = [row | {"limits": given(**row["limits"])} for row in rows]
    show(rows, as_json, *columns)


@keys.command("create")
def create_key(
    description: Annotated[str, typer.Argument(help="What it is for; at most 100 characters.")] = "",
    role: Role = "inference",
    endpoints: Annotated[
        list[str] | None, typer.Option("--endpoint", help="The only endpoints it may call; repeat for more.")
    ] = None,
    member: Annotated[
        str | None, typer.Option(help="Whose it is: it can do no more than they, and ends with them.")
    ] = None,
    expires: Expires = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrency: Concurrency = None,
    as_json: AsJson = False,
) -> None:
    """Issue a key. It is shown now and never again."""
    limits = given(
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrency=concurrency
    )
    body: dict[str, Any] = {"description": description, "role": role, "endpoints": endpoints or None, "member": member}
    body["limits"] = limits
    _show_once(Api().call("POST", "api-keys", json=body | _end_of(expires)), as_json)


@keys.command("update")
def update_key(
    key: WhichKey,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrency: Concurrency = None,
    clear: Annotated[
        list[str] | None, typer.Option(help="A limit to take away, such as tokens_per_minute; repeat.")
    ] = None,
    if_match: Annotated[str | None, typer.Option("--if-match", help="Only if its etag is still this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a key's limits: every router goes by them within a second."""
    limits = dict.fromkeys(clear or []) | given(
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrency=concurrency
    )
    if not limits:
        raise typer.BadParameter("nothing is to be changed: name at least one limit")
    headers = {"If-Match": if_match} if if_match else {}
    show(Api().call("PATCH", f"api-keys/{segment(key)}", json={"limits": limits}, headers=headers), as_json)


@keys.command("revoke")
def revoke_key(key: WhichKey, confirm: Confirm, as_json: AsJson = False) -> None:
    """Take a key back: every router refuses it within a second."""
    Api().delete(f"api-keys/{segment(key)}", confirm)
    show_done(f"{key} is revoked", {"id": key, "deleted": True}, as_json)


@members.command("list")
def list_members(as_json: AsJson = False) -> None:
    """List members. Meant where no command is named."""
    show(Api().list("members"), as_json, "id", "name", "role", "expires_at", "created_at")


@members.command("get")
def get_member(member: WhichMember, as_json: AsJson = False) -> None:
    """One member."""
    show(Api().call("GET", f"members/{segment(member)}"), as_json)


@members.command("add")
def add_member(
    name: Annotated[str, typer.Argument(help="At most 128 characters.")],
    role: Role,
    expires: Expires = None,
    as_json: AsJson = False,
) -> None:
    """Let somebody in; then 'modelunit keys create --member' issues keys for them."""
    show(Api().call("POST", "members", json={"name": name, "role": role} | _end_of(expires)), as_json)


@members.command("change")
def change_member(
    member: WhichMember,
    role: Annotated[str | None, typer.Option(help=_ROLES)] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="Such as 30d, a moment, or never.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change what a member may do, and so what their keys may do."""
    changes: dict[str, Any] = {"expires_at": None} if expires == "never" else _end_of(expires)
    if role is not None:
        changes["role"] = role
    if not changes:
        raise typer.BadParameter("nothing is to be changed: give --role or --expires")
    show(Api().call("PATCH", f"members/{segment(member)}", json=changes), as_json)


@members.command("remove")
def remove_member(member: WhichMember, confirm: Confirm, as_json: AsJson = False) -> None:
    """Take a member away, and their keys with them."""
    Api().delete(f"members/{segment(member)}", confirm)
    gone = {"id": member, "deleted": True}
    show_done(f"{member} is no member any more; their keys are revoked", gone, as_json)


@members.command("clear")
def clear_members(confirm: Confirm, as_json: AsJson = False) -> None:
    """Take all members away, and their keys with them."""
    Api().delete("members", confirm)
    show_done("there are no members any more; their keys are revoked", {"deleted": True}, as_json)


@workspaces.command("list")
def list_workspaces(as_json: AsJson = False) -> None:
    """List workspaces. Meant where no command is named."""
    show(Api().list("workspaces"), as_json, "id", "name", "created_at")


@workspaces.command("create")
def create_workspace(name: str, as_json: AsJson = False) -> None:
    """Make a workspace. Its first admin key is shown now and never again."""
    _show_once(Api().call("POST", "workspaces", json={"name": name}), as_json)


@workspaces.command("get")
def get_workspace(workspace: Annotated[str, typer.Argument(help="Its ID.")], as_json: AsJson = False) -> None:
    """One workspace."""
    show(Api().call("GET", f"workspaces/{segment(workspace)}"), as_json)


@workspaces.command("issue-key")
def issue_workspace_key(
    workspace: Annotated[str, typer.Argument(help="Its ID.")],
    description: Annotated[str, typer.Argument(help="What it is for; at most 100 characters.")] = "",
    revoke_others: Annotated[bool, typer.Option(help="End the workspace's other admin keys.")] = False,
    as_json: AsJson = False,
) -> None:
    """Issue an admin key of a workspace that has lost its own. It is shown now and never again."""
    body = {"description": description, "revoke_others": revoke_others}
    _show_once(Api().call("POST", f"workspaces/{segment(workspace)}/api-keys", json=body), as_json)


@workspaces.command("delete")
def delete_workspace(
    workspace: Annotated[str, typer.Argument(help="Its ID.")], confirm: Confirm, as_json: AsJson = False
) -> None:
    """Remove a workspace that has no endpoints, models or running jobs any more."""
    Api().delete(f"workspaces/{segment(workspace)}", confirm)
    show_done(f"{workspace} is removed", {"id": workspace, "deleted": True}, as_json)


def _end_of(expires: str | None) -> dict[str, Any]:
    return {} if expires is None else {"expires_at": ahead(expires)}


def _show_once(made: dict[str, Any], as_json: bool) -> None:
    show(made, as_json)
    if not as_json:
        errors.print("keep the key now: it is not shown again")
