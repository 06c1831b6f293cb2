"""`modelunit events` and `audit`: what happened, and who wanted what."""

from typing import Annotated

import typer

from app.cli.api import Api
from app.cli.terminal import AsJson, Limit, show
from app.cli.times import Since, Until

Actor = Annotated[str | None, typer.Option(help="A key's ID.")]


def events_command(
    subject: Annotated[str | None, typer.Option(help="The ID of what it happened to.")] = None,
    kind: Annotated[str | None, typer.Option(help="Such as created, healthy or revoked.")] = None,
    actor: Actor = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """What happened in the workspace."""
    rows = Api().newest("events", limit, subject=subject, kind=kind, actor=actor, since=since, until=until)
    show(rows, as_json, "created_at", "subject", "kind", "message", "actor")


def audit_command(
    actor: Actor = None,
    action: Annotated[str | None, typer.Option(help="Such as 'POST /platform/v1/endpoints'.")] = None,
    subject: Annotated[str | None, typer.Option(help="The ID of what it was about.")] = None,
    request_id: Annotated[str | None, typer.Option()] = None,
    workspace: Annotated[str | None, typer.Option(help="Another one, for the platform's admins.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Who wanted to change what, also where it was refused; for admins."""
    wanted = {"actor": actor, "action": action, "subject": subject, "request_id": request_id, "workspace": workspace}
    rows = Api().newest("audit", limit, **wanted, since=since, until=until)
    show(rows, as_json, "created_at", "actor", "action", "subject", "status", "request_id")
