"""`modelunit models`, `jobs` and `catalog`."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from app.terminal import Api, AsJson, Confirm, commands, errors, output, segment, show

POLL_S = 0.5

models = commands("Models: bring weights, look at them, remove them.")
jobs = commands("Jobs: what works on models, and what it wrote.")
catalog = commands("The base models that the platform knows.")

Which = Annotated[str, typer.Argument(help="A model's ID or name.")]


@models.command("list")
def models_command(as_json: AsJson = False) -> None:
    """List models. Meant where no command is named."""
    show(Api().list("models"), as_json, "id", "name", "base_model", "precision", "state", "reason")


@models.command("create")
def create_command(
    name: Annotated[str, typer.Argument(help="1 to 64 letters (Chinese too), digits, '_', '-', '.'.")],
    base_model: Annotated[str, typer.Option(help="A base model of the catalogue.")],
    source: Annotated[str | None, typer.Option(help="s3://BUCKET/FOLDER, file:///FOLDER or a folder here.")] = None,
    precision: Annotated[str, typer.Option(help="What the weights are: BF16 means not quantized.")] = "BF16",
    description: Annotated[str, typer.Option(help="At most 100 characters.")] = "",
    mode: Annotated[str, typer.Option(help="copy, or reference: leave the files where they are.")] = "copy",
    validate: Annotated[bool, typer.Option(help="Look at the weights before they are copied.")] = True,
    endpoint_url: Annotated[str | None, typer.Option(help="Of another S3 server.")] = None,
    region: Annotated[str | None, typer.Option()] = None,
    addressing_style: Annotated[str | None, typer.Option(help="auto, path or virtual.")] = None,
    profile: Annotated[str | None, typer.Option(help="AWS credentials by name.")] = None,
    wait: Annotated[bool, typer.Option(help="Until it is healthy or failed.")] = True,
    as_json: AsJson = False,
) -> None:
    """Bring weights into the model repository. Ends with 1 when they cannot be used; Ctrl-C leaves the upload going."""
    body: dict[str, Any] = {
        "name": name, "base_model": base_model, "precision": precision, "description": description, "mode": mode,
        "validate": validate,
    }  # fmt: skip
    if source is not None:
        where = {
            "uri": source if "://" in source else f"file://{Path(source).resolve()}", "endpoint_url": endpoint_url,
            "region": region, "addressing_style": addressing_style, "profile": profile,
        }  # fmt: skip
        body["source"] = {field: value for field, value in where.items() if value is not None}
    api = Api()
    model = api.call("POST", "models", json=body)
    if wait:
        model = _settled(api, model["id"])
    _end(model, as_json)


@models.command("retry")
def retry_command(model: Which, as_json: AsJson = False) -> None:
    """Begin a failed upload again; what has arrived is not sent twice."""
    api = Api()
    _end(_settled(api, api.call("POST", f"models/{segment(model)}:retry")["id"]), as_json)


@models.command("get")
def get_command(model: Which, as_json: AsJson = False) -> None:
    """Everything about one model."""
    found = Api().call("GET", f"models/{segment(model)}")
    _end(found if as_json else _in_brief(found), as_json, failing=False)


@models.command("versions")
def versions_command(model: Which, as_json: AsJson = False) -> None:
    """The precisions that a model can be served in."""
    show(Api().list(f"models/{segment(model)}/versions"), as_json, "id", "precision", "state", "digest", "reason")


@models.command("validate")
def validate_command(model: Which, as_json: AsJson = False) -> None:
    """Look at a healthy model's weights once more."""
    api = Api()
    job = api.call("POST", "jobs", json={"type": "validate", "model": model})
    while job["state"] not in ("completed", "failed", "stopped"):
        time.sleep(POLL_S)
        job = api.call("GET", f"jobs/{job['id']}")
    _end(job, as_json)


@models.command("delete")
def delete_command(model: Which, confirm: Confirm) -> None:
    """Remove a model and its weights; this cannot be undone."""
    gone = Api().call("DELETE", f"models/{segment(model)}", params={"confirm": confirm})
    output.print(f"{gone['id']} is being removed")


@jobs.command("list")
def jobs_command(
    type_: Annotated[str | None, typer.Option("--type", help="Such as upload or validate.")] = None,
    state: Annotated[str | None, typer.Option(help="Such as running or failed.")] = None,
    model_id: Annotated[str | None, typer.Option()] = None,
    as_json: AsJson = False,
) -> None:
    """List jobs. Meant where no command is named."""
    rows = Api().list("jobs", type=type_, state=state, model_id=model_id)
    show(rows, as_json, "id", "type", "model_name", "state", "progress", "reason")


@jobs.command("get")
def job_command(job: str, as_json: AsJson = False) -> None:
    """Everything about one job."""
    _end(Api().call("GET", f"jobs/{segment(job)}"), as_json, failing=False)


@jobs.command("logs")
def logs_command(
    job: str,
    search: Annotated[str, typer.Option(help="Only lines with this text, whatever the case.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
) -> None:
    """What a job wrote."""
    api = Api()
    found = False
    params = {"search": search, "follow" if follow else "download": "true"}
    for line in api.lines(f"jobs/{segment(job)}/logs", params=params):
        if line or not follow:  # an empty one may only show that the connection lives
            output.print(line)
            found = True
    if not found:
        shown = api.call("GET", f"jobs/{segment(job)}/logs")
        errors.print(f"no line contains {search!r}" if shown["data"] else shown["note"])


@jobs.command("stop")
def stop_command(job: str) -> None:
    """Stop a job."""
    output.print(f"{Api().call('POST', f'jobs/{segment(job)}:stop')['id']} is being stopped")


@catalog.command("list")
def catalog_command(as_json: AsJson = False) -> None:
    """List base models. Meant where no command is named."""
    columns = ("base_model", "series", "upload_precisions", "tune", "compress", "max_length_tokens")
    show(Api().list("catalog"), as_json, *columns)


@catalog.command("get")
def entry_command(base_model: str, as_json: AsJson = False) -> None:
    """Everything about one base model."""
    show(Api().call("GET", f"catalog/{segment(base_model)}"), as_json)


def _in_brief(model: dict[str, Any]) -> dict[str, Any]:
    """A model's page as lines."""
    return {
        **model,
        "supports": "; ".join(_use(use, model["supports"]) for use in ("tune", "compress", "deploy")),
        "versions": ", ".join(f"{version['precision']} {version['state']}" for version in model["versions"]),
        "jobs": ", ".join(f"{job['id']} ({job['type']}) {job['state']}" for job in model["jobs"]),
        "endpoints": ", ".join(f"{user['id']} ({user['name']}) {user['state']}" for user in model["endpoints"]),
    }


def _use(use: str, supports: dict[str, Any]) -> str:
    if use in supports["why_not"]:
        return f"no {use}: {supports['why_not'][use]}"
    return use if supports[use] is True else f"{use}: {', '.join(supports[use])}"


def _settled(api: Api, model_id: str) -> dict[str, Any]:
    """Show how far the model is, until it is made or failed."""
    try:
        return _followed(api, model_id)
    except KeyboardInterrupt:
        errors.print(
            f"interrupted; the wish stands and {model_id} goes on. 'modelunit models get {model_id}' shows it, "
            f"'modelunit models delete {model_id}' takes it back"
        )
        raise typer.Exit(1) from None


def _followed(api: Api, model_id: str) -> dict[str, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        bar = progress.add_task("preparing", total=None)
        while True:
            model: dict[str, Any] = api.call("GET", f"models/{model_id}")
            if model["state"] != "preparing":
                return model
            if made := api.list(f"models/{model_id}/jobs"):
                job = made[-1]
                total = job["total_bytes"] or None
                progress.update(
                    bar, description=f"{job['type']} {job['state']}", total=total, completed=job["done_bytes"]
                )
            time.sleep(POLL_S)


def _end(shown: dict[str, Any], as_json: bool, *, failing: bool = True) -> None:
    """Print a model or a job with its findings; one that failed ends with 1."""
    if as_json:
        show(shown, True)
    else:
        show({name: value for name, value in shown.items() if name != "findings"}, False)
        for found in shown.get("findings", []):
            where = " ".join(str(found[field]) for field in ("file", "tensor") if found[field])
            output.print(f"\n{found['severity']} {found['code']}{': ' + where if where else ''}\n  {found['message']}")
            for field in ("found", "expected", "fix"):
                if found[field]:
                    output.print(f"  {field}: {found[field]}")
    if failing and shown["state"] in ("failed", "stopped"):
        raise typer.Exit(1)
