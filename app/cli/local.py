"""`modelunit up`, `down`, `status`, `env`, `doctor` and `bench-platform`: the platform on this machine."""

import shlex
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from app.cli.api import Api
from app.cli.endpoints import show_endpoints
from app.cli.terminal import AsJson, errors, interruptible, output, settings_or_exit, show, show_done, stopwatch
from app.local.doctor import examine
from app.local.platform import down, up
from app.local.ray_node import TUNING
from app.local.running import curl_line, key_place


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
    with interruptible("'make serve' begins again where it can"):
        found, answer = up(settings, model, stopwatch(), config)
    if as_json:
        show({**found.model_dump(), "answer": answer}, True)
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


def env_command(as_json: AsJson = False) -> None:
    """Print the variables that every Ray node of a platform runs with, for `eval "$(modelunit env)"`."""
    if as_json:
        show(TUNING, True)
    else:
        output.print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in TUNING.items()))


def down_command(as_json: AsJson = False) -> None:
    """Stop what `up` started; data stay."""
    count = down(settings_or_exit(), errors.print)
    show_done(f"stopped {count} processes" if count else "nothing was running", {"stopped_processes": count}, as_json)


def status_command(as_json: AsJson = False) -> None:
    """Say whether the platform runs, and how its endpoints are."""
    api = Api()
    rows = api.list("endpoints")
    if as_json:
        here = api.platform.here
        about = here.model_dump() if here else {"base_url": api.platform.base_url}
        show({**about, "endpoints": rows}, True)
    else:
        output.print(api.platform.base_url)
        show_endpoints(rows, False)


def doctor_command(as_json: AsJson = False) -> None:
    """Look at all that the platform needs on this machine. Ends with 1 where something fails."""
    healths = examine(settings_or_exit())
    show([health.model_dump() for health in healths], as_json, "state", "name", "found", "advice")
    if any(health.state == "fail" for health in healths):
        raise typer.Exit(1)


def bench_command(
    rounds: Annotated[int, typer.Option(min=1, max=100)] = 3,
    only: Annotated[str | None, typer.Option(help="Just one part, in a table alone: router, upload, ...")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the platform against plain vLLM on this machine: a table, and HOME/bench.json. Takes minutes."""
    from app.bench.run import PARTS, run  # noqa: PLC0415 (nothing else of the command needs it)

    if only and only not in PARTS:
        errors.print(f"--only takes {', '.join(PARTS)}")
        raise typer.Exit(2)
    with redirect_stdout(sys.stderr) if as_json else nullcontext():  # the table
        rows = run(settings_or_exit().home, rounds, stopwatch(decimals=0), only)
    if as_json:
        show(rows, True)
