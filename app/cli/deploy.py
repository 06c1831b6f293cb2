"""`modelunit deploy`: from a folder of weights to an endpoint in one command."""

from typing import Annotated

import typer

from app.cli.api import reach, source_uri
from app.cli.terminal import AsJson, errors, interruptible, show
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
    name: Annotated[str | None, typer.Option(help="Of the endpoint.")] = None,
    wait: Annotated[bool, typer.Option(help="Until it can be called.")] = True,
    as_json: AsJson = False,
) -> None:
    """Bring weights and serve them. The three machine options go together; without them the platform chooses.

    Ctrl-C leaves the wish standing.
    """
    custom = CustomModel(source_uri(model), base_model, *reach())
    try:
        with interruptible("the endpoint goes on being made"):
            endpoint = custom.deploy(
                machine_type, accelerator_type, accelerator_count, min_units, max_units, name, wait=False
            )
            if wait:
                endpoint.wait(
                    on_change=lambda state, reason: errors.print(f"{endpoint.id} is {state} {reason}".rstrip())
                )
            show(endpoint.refresh(), as_json)
    except ValueError as error:
        errors.print(str(error))
        raise typer.Exit(2) from None
    except ClientError as error:
        raise StartFailed(str(error)) from None
