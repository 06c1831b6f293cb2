"""`modelunit machine-types`: what units run on."""

from typing import Annotated, Any

import typer

from app.cli.api import Api, given, segment
from app.cli.terminal import AsJson, commands, show

machine_types = commands("Machine types: what units run on.")

BaseModel = Annotated[str | None, typer.Option(help="Say what fits one of the catalogue.")]
Model = Annotated[str | None, typer.Option(help="Say what fits one of your models, by ID or name.")]
Precision = Annotated[str | None, typer.Option(help="Of the weights; BF16 unless said.")]
MaxModelLen = Annotated[int | None, typer.Option(help="In tokens; 4096 unless said.")]


@machine_types.command("list")
def list_command(
    base_model: BaseModel = None,
    model: Model = None,
    precision: Precision = None,
    max_model_len: MaxModelLen = None,
    as_json: AsJson = False,
) -> None:
    """List machine types, with quota and room. Meant where no command is named."""
    wanted = given(base_model=base_model, model=model, precision=precision, max_model_len=max_model_len)
    found = Api().list("machine-types", **wanted)
    fits = ["fits"] if base_model or model else []
    rows = found if as_json else [_row(machine) for machine in found]
    show(rows, as_json, "name", "accelerators", "step", "quota", "used", "room", "free", *fits)


@machine_types.command("get")
def get_command(
    name: str,
    base_model: BaseModel = None,
    model: Model = None,
    precision: Precision = None,
    max_model_len: MaxModelLen = None,
    as_json: AsJson = False,
) -> None:
    """Everything about one machine type."""
    wanted = given(base_model=base_model, model=model, precision=precision, max_model_len=max_model_len)
    show(Api().call("GET", f"machine-types/{segment(name)}", params=wanted), as_json)


def _row(machine: dict[str, Any]) -> dict[str, Any]:
    count, cluster, fit = machine["accelerator_count"], machine["cluster"] or {}, machine.get("fit")
    return machine | {
        "accelerators": f"{count} x {machine['accelerator'] or 'GPU'}" if count else None,
        "room": cluster.get("units"),
        "free": cluster.get("free"),
        "fits": fit and ("yes" if fit["ok"] else "; ".join(fit["reasons"])),
    }
