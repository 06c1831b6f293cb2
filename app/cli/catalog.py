"""`modelunit catalog`: the base models that the platform knows."""

from app.cli.api import Api, segment
from app.cli.terminal import AsJson, commands, show

catalog = commands("The base models that the platform knows.")


@catalog.command("list")
def list_command(as_json: AsJson = False) -> None:
    """List base models. Meant where no command is named."""
    columns = ("base_model", "series", "upload_precisions", "tune", "compress", "max_length_tokens")
    show(Api().list("catalog"), as_json, *columns)


@catalog.command("get")
def get_command(base_model: str, as_json: AsJson = False) -> None:
    """Everything about one base model."""
    show(Api().call("GET", f"catalog/{segment(base_model)}"), as_json)
