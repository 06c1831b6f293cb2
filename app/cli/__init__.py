"""`modelunit`: the platform for a person at a terminal."""

import typer

from app.cli.access import keys, members, workspaces
from app.cli.catalog import catalog
from app.cli.chat import chat_command
from app.cli.data import data
from app.cli.deploy import deploy_command
from app.cli.endpoints import endpoints
from app.cli.history import audit_command, events_command
from app.cli.jobs import jobs
from app.cli.local import bench_command, doctor_command, down_command, env_command, status_command, up_command
from app.cli.machine_types import machine_types
from app.cli.models import models
from app.cli.terminal import Commands
from app.cli.usage import usage_command

HERE, THINGS, ACCESS = "The platform on this machine", "What it serves", "Who and what"

app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(endpoints, name="endpoints", rich_help_panel=THINGS)
app.add_typer(models, name="models", rich_help_panel=THINGS)
app.add_typer(jobs, name="jobs", rich_help_panel=THINGS)
app.add_typer(data, name="data", rich_help_panel=THINGS)
app.add_typer(catalog, name="catalog", rich_help_panel=THINGS)
app.add_typer(machine_types, name="machine-types", rich_help_panel=THINGS)
app.add_typer(keys, name="keys", rich_help_panel=ACCESS)
app.add_typer(members, name="members", rich_help_panel=ACCESS)
app.add_typer(workspaces, name="workspaces", rich_help_panel=ACCESS)
app.command("deploy", rich_help_panel=THINGS)(deploy_command)
app.command("chat", rich_help_panel=THINGS)(chat_command)
app.command("usage", rich_help_panel=ACCESS)(usage_command)
app.command("events", rich_help_panel=ACCESS)(events_command)
app.command("audit", rich_help_panel=ACCESS)(audit_command)
app.command("up", rich_help_panel=HERE)(up_command)
app.command("env", rich_help_panel=HERE)(env_command)
app.command("down", rich_help_panel=HERE)(down_command)
app.command("status", rich_help_panel=HERE)(status_command)
app.command("doctor", rich_help_panel=HERE)(doctor_command)
app.command("bench-platform", rich_help_panel=HERE)(bench_command)


def main() -> None:
    """The entry point: exit codes 0, 1 (failed) and 2 (wrong usage)."""
    app()
