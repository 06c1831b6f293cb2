"""`modelunit`: the platform for a person at a terminal."""

import json
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from app.cli_access import keys, members, workspaces
from app.cli_chat import chat_command
from app.cli_deploy import deploy_command
from app.cli_endpoints import endpoints, show_endpoints
from app.cli_history import audit_command, events_command
from app.cli_machines import machine_types
from app.cli_models import catalog, jobs, models
from app.local.doctor import examine
from app.local.platform import curl_line, down, key_place, running, up
from app.local.ray_node import TUNING
from app.terminal import Api, AsJson, Commands, errors, output, settings_or_exit, show

HERE, THINGS, ACCESS = "The platform on this machine", "What it serves", "Who and what"

app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(endpoints, name="endpoints", rich_help_panel=THINGS)
app.add_typer(models, name="models", rich_help_panel=THINGS)
app.add_typer(jobs, name="jobs", rich_help_panel=THINGS)
app.add_typer(catalog, name="catalog", rich_help_panel=THINGS)
app.add_typer(machine_types, name="machine-types", rich_help_panel=THINGS)
app.add_typer(keys, name="keys", rich_help_panel=ACCESS)
app.add_typer(members, name="members", rich_help_panel=ACCESS)
app.add_typer(workspaces, name="workspaces", rich_help_panel=ACCESS)
app.command("deploy", rich_help_panel=THINGS)(deploy_command)
app.command("chat", rich_help_panel=THINGS)(chat_command)
app.command("events", rich_help_panel=ACCESS)(events_command)
app.command("audit", rich_help_panel=ACCESS)(audit_command)


def main() -> None:
    """The entry point: exit codes 0, 1 (failed) and 2 (wrong usage)."""
    app()


@app.command("up", rich_help_panel=HERE)
def up_command(
    model: Annotated[
        Path | None, typer.Option(help="A Hugging Face folder to serve instead of the demo model.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The serve config to deploy instead of the one that was deployed last.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start the platform on this machine and chat with its demo endpoint once."""
    settings = settings_or_exit()
    if model is not None and not model.is_dir():
        errors.print(f"--model {model} is not a folder")
        raise typer.Exit(2)
    started = time.monotonic()

    def say(text: str) -> None:
        errors.print(f"[{time.monotonic() - started:5.1f} s] {text}")

    try:
        found, answer = up(settings, model, say, config)
    except KeyboardInterrupt:
        errors.print("interrupted; 'make serve' begins again where it can")
        raise typer.Exit(1) from None
    if as_json:
        output.print_json(json.dumps({**found.model_dump(), "answer": answer}))
        return
    lines = [
        f"the model says: {answer}",
        f"base URL:       {found.base_url}/v1",
        f"endpoint ID:    {found.endpoint_id}",
        f"admin key:      {key_place(settings, found)}",
        f"Ray dashboard:  {found.dashboard_url} (token in {found.ray_token_file})",
        f"try it:         {curl_line(settings, found)}",
    ]
    output.print("\n".join(lines))


@app.command("env", rich_help_panel=HERE)
def env_command(as_json: AsJson = False) -> None:
    """Print the variables that every Ray node of a platform runs with, for `eval "$(modelunit env)"`."""
    if as_json:
        output.print_json(json.dumps(TUNING))
        return
    output.print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in TUNING.items()))


@app.command("down", rich_help_panel=HERE)
def down_command() -> None:
    """Stop what `up` started; data stay."""
    count = down(settings_or_exit(), errors.print)
    output.print(f"stopped {count} processes" if count else "nothing was running")


@app.command("status", rich_help_panel=HERE)
def status_command(as_json: AsJson = False) -> None:
    """Say whether the platform runs, and how its endpoints are."""
    settings = settings_or_exit()
    found = running(settings)
    if found is None:
        errors.print(f"no platform runs for {settings.home}; start one with 'modelunit up'")
        raise typer.Exit(1)
    rows = Api().list("endpoints")
    if as_json:
        output.print_json(json.dumps({**found.model_dump(), "endpoints": rows}))
        return
    output.print(f"{found.base_url}")
    show_endpoints(rows, False)


@app.command("doctor", rich_help_panel=HERE)
def doctor_command(as_json: AsJson = False) -> None:
    """Look at all that the platform needs on this machine. Ends with 1 where something fails."""
    healths = examine(settings_or_exit())
    show([health.model_dump() for health in healths], as_json, "state", "name", "found", "advice")
    if any(health.state == "fail" for health in healths):
        raise typer.Exit(1)


@app.command("bench-platform", rich_help_panel=HERE)
def bench_platform_command(rounds: Annotated[int, typer.Option(min=1, max=100)] = 3) -> None:
    """Measure the platform against plain vLLM on this machine: a table, and HOME/bench.json. Takes minutes."""
    from app.bench.run import run  # noqa: PLC0415 (nothing else of the command needs it)

    started = time.monotonic()
    run(
        settings_or_exit().home,
        rounds,
        lambda text: errors.print(f"[{time.monotonic() - started:5.0f} s] {text}"),
    )
