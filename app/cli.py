"""`modelunit`: the platform for a person at a terminal."""

import json
import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from app.local import StartFailed
from app.local.platform import api_client, curl_line, down, running, up
from app.local.ray_node import TUNING
from app.local.serve_config import LOCAL
from app.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
errors = Console(stderr=True, soft_wrap=True, highlight=False)
output = Console(soft_wrap=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def main() -> None:
    """The entry point: exit codes 0, 1 (failed) and 2 (wrong usage)."""
    app()


def _settings() -> Settings:
    try:
        return Settings.from_environ()
    except ValueError as error:
        errors.print(str(error))
        raise typer.Exit(2) from None


@app.command("up")
def up_command(
    model: Annotated[
        Path | None, typer.Option(help="A Hugging Face folder to serve instead of the demo model.")
    ] = None,
    config: Annotated[Path, typer.Option(help="The serve config to deploy.")] = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Start the platform on this machine and chat with its demo endpoint once."""
    settings = _settings()
    if model is not None and not model.is_dir():
        errors.print(f"--model {model} is not a folder")
        raise typer.Exit(2)
    started = time.monotonic()

    def say(text: str) -> None:
        errors.print(f"[{time.monotonic() - started:5.1f} s] {text}", markup=False)

    try:
        found, answer = up(settings, model, say, config)
    except StartFailed as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        errors.print("interrupted; 'make serve' begins again where it can")
        raise typer.Exit(130) from None
    if as_json:
        output.print_json(json.dumps({**found.model_dump(), "answer": answer}))
        return
    lines = [
        f"the model says: {answer}",
        f"base URL:       {found.base_url}/v1",
        f"endpoint ID:    {found.endpoint_id}",
        f"admin key:      in {found.admin_key_file}",
        f"Ray dashboard:  {found.dashboard_url} (token in {found.ray_token_file})",
        f"try it:         {curl_line(found)}",
    ]
    output.print("\n".join(lines), markup=False)


@app.command("env")
def env_command(as_json: AsJson = False) -> None:
    """Print the variables that every Ray node of a platform runs with, for `eval "$(modelunit env)"`."""
    if as_json:
        output.print_json(json.dumps(TUNING))
        return
    output.print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in TUNING.items()), markup=False)


@app.command("down")
def down_command() -> None:
    """Stop what `up` started; data stay."""
    count = down(_settings(), lambda text: errors.print(text, markup=False))
    output.print(f"stopped {count} processes" if count else "nothing was running")


@app.command("status")
def status_command(as_json: AsJson = False) -> None:
    """Say whether the platform runs, and how its endpoints are."""
    settings = _settings()
    found = running(settings)
    if found is None:
        errors.print(f"no platform runs for {settings.home}; start one with 'modelunit up'")
        raise typer.Exit(1)
    rows = _list(settings, "endpoints")
    if as_json:
        output.print_json(json.dumps({**found.model_dump(), "endpoints": rows}))
        return
    output.print(f"{found.base_url}")
    _table(rows, "id", "name", "state", "reason")


@app.command("bench-platform")
def bench_platform_command(rounds: Annotated[int, typer.Option(min=1, max=100)] = 3) -> None:
    """Measure the platform against plain vLLM on this machine: a table, and HOME/bench.json. Takes minutes."""
    from app.bench.run import run  # noqa: PLC0415 (nothing else of the command needs it)

    started = time.monotonic()
    run(
        _settings().home,
        rounds,
        lambda text: errors.print(f"[{time.monotonic() - started:5.0f} s] {text}", markup=False),
    )


@app.command("endpoints")
def endpoints_command(as_json: AsJson = False) -> None:
    """List endpoints."""
    rows = _list(_settings(), "endpoints")
    output.print_json(json.dumps(rows)) if as_json else _table(rows, "id", "name", "model", "state", "reason")


@app.command("models")
def models_command(as_json: AsJson = False) -> None:
    """List models."""
    rows = _list(_settings(), "models")
    output.print_json(json.dumps(rows)) if as_json else _table(rows, "id", "name", "state", "reason")


def _list(settings: Settings, resource: str) -> list[dict[str, Any]]:
    found = running(settings)
    if found is None:
        errors.print("no platform runs here; start one with 'modelunit up'")
        raise typer.Exit(1)
    rows: list[dict[str, Any]] = []
    with api_client(settings, found) as client:
        token: str | None = None
        while True:
            answer = client.get(f"/platform/v1/{resource}", params={"page_token": token} if token else {})
            if answer.status_code != 200:
                errors.print(answer.text[:500], markup=False)
                raise typer.Exit(1)
            rows += answer.json()["data"]
            token = answer.json()["next_page_token"]
            if token is None:
                return rows


def _table(rows: list[dict[str, Any]], *columns: str) -> None:
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    output.print(table)
