"""`modelunit jobs`: what works on models, and what it wrote."""

from typing import Annotated

import typer

from app.cli.api import Api, segment
from app.cli.compression import quantize_job_command
from app.cli.findings import show_with_findings
from app.cli.terminal import AsJson, Commands, Confirm, Search, commands, errors, output, show, show_done
from app.cli.tuning import estimate_command, export_command, finetune_command, plot_command, resume_command
from app.core.records import JobState, JobType

jobs = commands("Jobs: what works on models, and what it wrote.")
create = typer.Typer(cls=Commands, help="Start a job.", add_completion=False, no_args_is_help=True)
create.command("finetune")(finetune_command)
create.command("quantize")(quantize_job_command)
jobs.add_typer(create, name="create")
jobs.command("estimate")(estimate_command)
jobs.command("plot")(plot_command)
jobs.command("resume")(resume_command)
jobs.command("export")(export_command)


@jobs.command("list")
def list_command(
    type_: Annotated[JobType | None, typer.Option("--type", help="Such as finetune or validate.")] = None,
    state: Annotated[JobState | None, typer.Option(help="Such as running or failed.")] = None,
    model_id: Annotated[str | None, typer.Option()] = None,
    as_json: AsJson = False,
) -> None:
    """List jobs. Meant where no command is named."""
    rows = Api().list("jobs", type=type_, state=state, model_id=model_id)
    show(rows, as_json, "id", "type", "name", "model_name", "state", "progress", "eta_s", "output_model", "reason")


@jobs.command("get")
def get_command(job: str, as_json: AsJson = False) -> None:
    """Everything about one job."""
    show_with_findings(Api().call("GET", f"jobs/{segment(job)}"), as_json)


@jobs.command("logs")
def logs_command(
    job: str,
    search: Search = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a job wrote."""
    if follow and as_json:
        raise typer.BadParameter("--follow does not go together with --json")
    api = Api()
    path = f"jobs/{segment(job)}/logs"
    if as_json:
        show(api.list(path, search=search), True)
        return
    any_line = False
    for line in api.lines(path, params={"search": search, "follow" if follow else "download": "true"}):
        if line or not follow:  # an empty one may only show that the connection lives
            output.print(line)
            any_line = True
    if not any_line:
        kept = api.call("GET", path)
        errors.print(f"no line contains {search!r}" if kept["data"] else kept["note"])


@jobs.command("stop")
def stop_command(job: str, as_json: AsJson = False) -> None:
    """Stop a job; one that trains stops at a checkpoint, one that compresses after a layer, and both can go on."""
    stopped = Api().call("POST", f"jobs/{segment(job)}:stop")
    show_done(f"{stopped['id']} is being stopped", stopped, as_json)


@jobs.command("delete")
def delete_command(job: str, confirm: Confirm, as_json: AsJson = False) -> None:
    """Remove the record of a job that has ended, with its checkpoints; the model it made stays."""
    gone = Api().delete(f"jobs/{segment(job)}", confirm)
    show_done(f"{gone['id']} is gone", gone, as_json)
