"""`modelunit deploy`: from a folder of weights to an endpoint in one command."""

import uuid
from typing import Annotated

import typer

from app.cli.api import Api, source_uri
from app.cli.endpoint_outcome import Timeout, Wait, show_outcome
from app.cli.terminal import AsJson, errors, interruptible
from app.client import ClientError, CustomModel
from app.local import StartFailed


def deploy_command(
    model: Annotated[str, typer.Option(help="s3://BUCKET/FOLDER, file:///FOLDER or a folder here.")],
    base_model: Annotated[str | None, typer.Option(help="Of the catalogue; left out, config.json tells.")] = None,
    machine_type: Annotated[str | None, typer.Option(help="One of 'modelunit machine-types'.")] = None,
    accelerator_type: Annotated[str | None, typer.Option(help="Such as H100; NONE for a machine without.")] = None,
    accelerator_count: Annotated[int | None, typer.Option(min=0, help="Cards per machine.")] = None,
    min_units: Annotated[int, typer.Option(min=0, max=64)] = 1,
    max_units: Annotated[int, typer.Option(min=1, max=64)] = 1,
    name: Annotated[str | None, typer.Option(help="Of the endpoint; left out, the folder's.")] = None,
    wait: Wait = True,
    timeout: Timeout = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Any text: however often the command is repeated with it, it makes one endpoint.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring weights and serve them. The three machine options go together; without them the platform chooses.

    Ends with 1 when they cannot be served; Ctrl-C leaves the wish standing.
    """
    api = Api()
    custom = CustomModel(source_uri(model), base_model, api.platform.base_url, api.platform.key)
    key = idempotency_key or uuid.uuid4().hex
    unknown = f"an endpoint may have been made; the same command with --idempotency-key {key} makes no second one"
    try:
        with interruptible(unknown), errors.status("asking for an endpoint"):
            made = custom.deploy(
                machine_type, accelerator_type, accelerator_count, min_units, max_units, name,
                wait=False, idempotency_key=key,
            )  # fmt: skip
            endpoint = {"id": made.id} if wait else made.refresh()
    except ValueError as error:
        errors.print(str(error))
        raise typer.Exit(2) from None
    except ClientError as error:
        raise StartFailed(f"{error}; {unknown}" if error.passing else str(error)) from None
    show_outcome(api, endpoint, wait, timeout, as_json)
