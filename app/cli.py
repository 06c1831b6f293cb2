"""`modelunit`: the platform for a person at a terminal."""

import json
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from app.cli_models import catalog, jobs, models
from app.local.platform import curl_line, down, key_place, running, up
from app.local.ray_node import TUNING
from app.local.serve_config import LOCAL
from app.terminal import Api, AsJson, Commands, errors, output, settings_or_exit, show

app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
app.add_typer(models, name="models")
app.add_typer(jobs, name="jobs")
app.add_typer(catalog, name="catalog")


def main() -> None:
    """The entry point: exit codes 0, 1 (failed) and 2 (wrong usage)."""
    app()


@app.command("up")
def up_command(
    model: Annotated[
        Path | None, typer.Option(help="A Hugging Face folder to serve instead of the demo model.")
    ] = None,
    config: Annotated[Path, typer.Option(help="The serve config to deploy.")] = LOCAL,
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


@app.command("env")
def env_command(as_json: AsJson = False) -> None:
    """Print the variables that every Ray node of a platform runs with, for `eval "$(modelunit env)"`."""
    if as_json:
        output.print_json(json.dumps(TUNING))
        return
    output.print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in TUNING.items()))


@app.command("down")
def down_command() -> None:
    """Stop what `up` started; data stay."""
    count = down(settings_or_exit(), errors.print)
    output.print(f"stopped {count} processes" if count else "nothing was running")


@app.command("status")
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
    show(rows, False, "id", "name", "state", "reason")


@app.command("bench-platform")
def bench_platform_command(rounds: Annotated[int, typer.Option(min=1, max=100)] = 3) -> None:
    """Measure the platform against plain vLLM on this machine: a table, and HOME/bench.json. Takes minutes."""
    from app.bench.run import run  # noqa: PLC0415 (nothing else of the command needs it)

    started = time.monotonic()
    run(
        settings_or_exit().home,
        rounds,
        lambda text: errors.print(f"[{time.monotonic() - started:5.0f} s] {text}"),
    )


@app.command("endpoints")
def endpoints_command(as_json: AsJson = False) -> None:
    """List endpoints."""
    show(Api().list("endpoints"), as_json, "id", "name", "model", "state", "reason")
