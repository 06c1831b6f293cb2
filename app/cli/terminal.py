"""What every command shares of the terminal: what options look like, where it prints, and how it fails."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from app.local import StartFailed
from app.settings import Settings

errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
# Wider than any terminal: IDs are there to be copied, so tables never cut them.
output = Console(width=1000, soft_wrap=True, highlight=False, markup=False, emoji=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Confirm = Annotated[str, typer.Option(help="Type DELETE: this is meant.", prompt="Type DELETE to confirm")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, the newest.")]
Search = Annotated[str, typer.Option(help="Only lines with this text, whatever the case.")]

_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


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


@contextmanager
def interruptible(goes_on: str) -> Iterator[None]:
    """Where Ctrl-C leaves something behind: it ends the command with 1, and its line says what goes on."""
    try:
        yield
    except KeyboardInterrupt:
        errors.print(f"interrupted; {goes_on}")
        raise typer.Exit(1) from None


def settings_or_exit() -> Settings:
    """What the environment says; a wrong variable is wrong usage."""
    try:
        return Settings.from_environ()
    except ValueError as error:
        errors.print(str(error))
        raise typer.Exit(2) from None


def stopwatch(decimals: int = 1) -> Callable[[str], None]:
    """Says what a long command is at, each time with the seconds since now."""
    started = time.monotonic()

    def say(text: str) -> None:
        errors.print(f"[{time.monotonic() - started:5.{decimals}f} s] {text}")

    return say


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


def show_done(text: str, record: Any, as_json: bool) -> None:
    """That something is done: in a sentence, or as the record of it in JSON."""
    if as_json:
        show(record, True)
    else:
        output.print(text)


def printable(text: str) -> str:
    """Without what would steer a terminal: models and engines may write anything."""
    return text.translate(_CONTROL)


def _text(value: Any) -> str:
    if isinstance(value, dict | list):
        return printable(json.dumps(value, ensure_ascii=False)) if value else "-"
    return "-" if value is None or value == "" else printable(str(value))
