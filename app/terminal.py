"""What every command shares: where it prints, how it reaches the platform, how it fails."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from app.local import StartFailed
from app.local.platform import admin_key, running
from app.settings import Settings

errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
# Wider than any terminal: IDs are there to be copied, so tables never cut them.
output = Console(width=1000, soft_wrap=True, highlight=False, markup=False, emoji=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Confirm = Annotated[str, typer.Option(help="Type DELETE: this is meant.", prompt="Type DELETE to confirm")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, the newest.")]

Rows = list[dict[str, Any]]

TIMEOUT_S = 600
PAGE = 1000
"""The largest page that the API gives."""
_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class Refused(StartFailed):
    """The platform answered with an error; the message is its own."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


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


class Lists(Commands):
    """Commands of which `list` is meant where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See TyperGroup."""
        named = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        if not named and not ctx.resilient_parsing:
            args = ["list", *args]
        return super().parse_args(ctx, args)


def commands(what: str) -> typer.Typer:
    """A group of commands over things of one kind, with a `list`."""
    return typer.Typer(cls=Lists, help=what, add_completion=False)


def settings_or_exit() -> Settings:
    """What the environment says; a wrong variable is wrong usage."""
    try:
        return Settings.from_environ()
    except ValueError as error:
        errors.print(str(error))
        raise typer.Exit(2) from None


def reach(environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Base URL and key: MODELUNIT_BASE_URL and MODELUNIT_API_KEY, else those of the platform here and its admin.

    Raises StartFailed.
    """
    if url := environ.get("MODELUNIT_BASE_URL"):
        if key := environ.get("MODELUNIT_API_KEY"):
            return url, key
        raise StartFailed("MODELUNIT_BASE_URL names a platform, but MODELUNIT_API_KEY has no key for it")
    settings = settings_or_exit()
    found = running(settings)
    if found is None:
        raise StartFailed(
            "no platform runs here; start one with 'modelunit up', or name one elsewhere by MODELUNIT_BASE_URL and "
            "MODELUNIT_API_KEY"
        )
    return found.base_url, admin_key(settings, found)


class Api:
    """The platform's API. Every failure ends the command with the API's own words."""

    def __init__(self) -> None:
        url, key = reach()
        headers = {"authorization": f"Bearer {key}"}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False)

    def call(self, method: str, path: str, **request: Any) -> Any:
        """The JSON of the answer, None where there is none; `path` is relative to /platform/v1."""
        return self._checked(self._client.request(method, f"/platform/v1/{path}", **request))

    def list(self, path: str, limit: int | None = None, **filters: Any) -> Rows:
        """All pages of a list, or its first `limit` rows; filters that are None are left out."""
        params = {name: value for name, value in filters.items() if value is not None}
        if limit is not None:
            params["page_size"] = min(limit, PAGE)
        rows: Rows = []
        while True:
            page = self.call("GET", path, params=params)
            try:
                rows += page["data"]
                token = page["next_page_token"]
            except (KeyError, TypeError):
                raise self._not_a_platform() from None
            if token is None or (limit is not None and len(rows) >= limit):
                return rows[:limit]
            params["page_token"] = token

    def newest(self, path: str, limit: int, **filters: Any) -> Rows:
        """The last rows of a list that can be turned round, oldest first."""
        return self.list(path, limit, order="desc", **filters)[::-1]

    def lines(self, path: str, **request: Any) -> Iterator[str]:
        """The lines of an answer in plain text, as they come."""
        return self._lines("GET", f"/platform/v1/{path}", "text/plain", **request)

    def chat(self, body: Mapping[str, Any]) -> Any:
        """A whole answer in OpenAI's format."""
        return self._checked(self._client.post("/v1/chat/completions", json=body))

    def chat_events(self, body: Mapping[str, Any]) -> Iterator[str]:
        """The lines of an answer as server-sent events, as they come."""
        return self._lines("POST", "/v1/chat/completions", "text/event-stream", json={**body, "stream": True})

    def _lines(self, method: str, url: str, content_type: str, **request: Any) -> Iterator[str]:
        with self._client.stream(method, url, **request) as answer:
            if answer.status_code >= 400 or not answer.headers.get("content-type", "").startswith(content_type):
                answer.read()
                self._checked(answer)
                raise self._not_a_platform()
            yield from answer.iter_lines()

    def _checked(self, answer: httpx.Response) -> Any:
        if answer.status_code == 204:
            return None
        try:
            body = answer.json()
        except ValueError:
            raise self._not_a_platform() from None
        if answer.status_code >= 400:
            told = body.get("error", {}) if isinstance(body, dict) else {}
            raise Refused(str(told.get("message") or f"the platform answered {answer.status_code}"), answer.status_code)
        return body

    def _not_a_platform(self) -> StartFailed:
        return StartFailed(f"what answers at {self._client.base_url} is not a platform")


def segment(typed: str) -> str:
    """One part of a path, whatever a person typed: it must not lead elsewhere."""
    if typed in ("", ".", ".."):
        raise typer.BadParameter(f"{typed!r} is neither an ID nor a name")
    return quote(typed, safe="")


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


def printable(text: str) -> str:
    """Without what would steer a terminal: models and engines may write anything."""
    return text.translate(_CONTROL)


def _text(value: Any) -> str:
    if isinstance(value, dict | list):
        return printable(json.dumps(value, ensure_ascii=False)) if value else "-"
    return "-" if value is None or value == "" else printable(str(value))
