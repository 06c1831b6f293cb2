"""`modelunit` in the process of the test."""

import json
from collections.abc import Iterator
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner, Result

from app.cli import app


def modelunit(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=typed)


def done(*arguments: str, typed: str | None = None) -> str:
    """What a command that succeeds prints."""
    result = modelunit(*arguments, typed=typed)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def told(*arguments: str) -> Any:
    return json.loads(done(*arguments, "--json"))


def options_of_commands() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each command as it is typed, and its options by how they are typed."""
    groups: list[tuple[str, Any]] = [("modelunit", get_command(app))]
    while groups:
        path, command = groups.pop()
        inner = getattr(command, "commands", {})
        groups += [(f"{path} {name}", one) for name, one in inner.items()]
        if not inner:
            yield path, {typed: option for option in command.params for typed in option.opts}
