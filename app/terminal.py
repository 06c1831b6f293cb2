"""What every command shares: where it prints, how it reaches the platform, how it fails."""

import json
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from app.local import StartFailed
from app.local.platform import api_client, running
from app.settings import Settings

errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
# Wider than any terminal: IDs are there to be copied, so tables never cut them.
output = Console(width=1000, soft_wrap=True, highlight=False, markup=False, emoji=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


class Commands(TyperGroup):
    """Whatever command fails ends with a line that says why, and with 1."""

    def invoke(self, ctx: Any) -> Any:
        """See TyperGroup, which would end with 130 after Ctrl-C."""
        try:
            return super().invoke(ctx)
        except StartFailed as error:
            errors.print(str(error))
        except httpx.HTTPError as error:
            errors.print(f"the platform does not answer as it should ({type(error).__name__}): {error}")
        except KeyboardInterrupt:
            errors.print("interrupted")
        raise typer.Exit(1)


def settings_or_exit() -> Settings:
    """What the environment says; a wrong variable is wrong usage."""
    try:
        return Settings.from_environ()
    except ValueError as error:
        errors.print(str(error))
        raise typer.Exit(2) from None


class Api:
    """The control API of the platform that runs here. Every failure ends the command with the API's own words."""

    def __init__(self) -> None:
        settings = settings_or_exit()
        found = running(settings)
        if found is None:
            raise StartFailed("no platform runs here; start one with 'modelunit up'")
        self._client = api_client(settings, found)

    def call(self, method: str, path: str, **request: Any) -> Any:
        """The JSON of the answer; `path` is relative to /platform/v1."""
        answer = self._client.request(method, f"/platform/v1/{path}", **request)
        try:
            body = answer.json()
        except ValueError:
            raise StartFailed(f"what answers at {self._client.base_url} is not a platform") from None
        if answer.status_code >= 400:
            told = body.get("error", {}) if isinstance(body, dict) else {}
            raise StartFailed(str(told.get("message") or f"the platform answered {answer.status_code}"))
        return body

    def list(self, path: str) -> list[dict[str, Any]]:
        """All pages of a list."""
        rows: list[dict[str, Any]] = []
        token: str | None = None
        while True:
            page = self.call("GET", path, params={"page_token": token} if token else {})
            try:
                rows += page["data"]
                token = page["next_page_token"]
            except (KeyError, TypeError):
                raise StartFailed(f"what answers at {self._client.base_url} is not a platform") from None
            if token is None:
                return rows


def show(value: Any, as_json: bool, *columns: str) -> None:
    """Rows as a table of these columns, one object as lines; or either as JSON."""
    if as_json:
        output.print_json(json.dumps(value))
    elif isinstance(value, list):
        table = Table(*columns, box=None)
        for row in value:
            table.add_row(*(_text(row.get(column)) for column in columns))
        output.print(table)
    else:
        width = max(map(len, value), default=0)
        output.print("\n".join(f"{name:<{width}}  {_text(content)}" for name, content in value.items()))


def _text(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False) if value else "-"
    return "-" if value is None or value == "" else str(value)
