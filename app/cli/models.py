"""`modelunit models`: bring weights, look at them, remove them."""

from typing import Annotated, Any

import typer

from app.cli.api import Api, given, segment, source_uri
from app.cli.compression import card_command, quantize_command
from app.cli.compression_reports import show_versions
from app.cli.findings import show_outcome, show_with_findings
from app.cli.terminal import AsJson, Confirm, commands, show, show_done
from app.cli.waiting import wait_for_job, wait_for_model

models = commands("Models: bring weights, look at them, remove them.")

WhichModel = Annotated[str, typer.Argument(help="A model's ID or name.")]


@models.command("list")
def list_command(as_json: AsJson = False) -> None:
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
        body["source"] = {"uri": source_uri(source)} | given(
            endpoint_url=endpoint_url, region=region, addressing_style=addressing_style, profile=profile
        )
    api = Api()
    model = api.call("POST", "models", json=body)
    show_outcome(wait_for_model(api, model["id"]) if wait else model, as_json)


@models.command("retry")
def retry_command(model: WhichModel, as_json: AsJson = False) -> None:
    """Begin a failed upload again; what has arrived is not sent twice."""
    api = Api()
    begun = api.call("POST", f"models/{segment(model)}:retry")
    show_outcome(wait_for_model(api, begun["id"]), as_json)


@models.command("get")
def get_command(model: WhichModel, as_json: AsJson = False) -> None:
    """Everything about one model."""
    found = Api().call("GET", f"models/{segment(model)}")
    show_with_findings(found if as_json else _in_brief(found), as_json)


@models.command("versions")
def versions_command(model: WhichModel, as_json: AsJson = False) -> None:
    """The precisions of a model, what each has cost in quality, and where it can run."""
    show_versions(Api().list(f"models/{segment(model)}/versions"), as_json)


models.command("quantize")(quantize_command)
models.command("card")(card_command)


@models.command("delete-version")
def delete_version_command(
    model: WhichModel,
    confirm: Confirm,
    precision: Annotated[str, typer.Option(help="One that was made by compression.")],
    as_json: AsJson = False,
) -> None:
    """Remove a version and its weights; this cannot be undone."""
    gone = Api().delete(f"models/{segment(model)}/versions/{segment(precision)}", confirm)
    show_done(f"{gone['id']} is gone", gone, as_json)


@models.command("validate")
def validate_command(model: WhichModel, as_json: AsJson = False) -> None:
    """Look at a healthy model's weights once more."""
    api = Api()
    job = api.call("POST", "jobs", json={"type": "validate", "model": model})
    show_outcome(wait_for_job(api, job), as_json)


@models.command("delete")
def delete_command(model: WhichModel, confirm: Confirm, as_json: AsJson = False) -> None:
    """Remove a model and its weights; this cannot be undone."""
    gone = Api().delete(f"models/{segment(model)}", confirm)
    show_done(f"{gone['id']} is being removed", gone, as_json)


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
