"""`modelunit` in the process of the test, and in one of its own."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from app.cli import app

ROOT = Path(__file__).parents[2]


def modelunit(*arguments: str, typed: str | None = None) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", lambda _: whole_command())
        return CliRunner().invoke(app, arguments, input=typed)


@cache
def whole_command() -> Any:
    """Made once: Typer takes longer to read all commands than most of them take."""
    return get_command(app)


def done(*arguments: str, typed: str | None = None) -> str:
    """What a command that succeeds prints."""
    result = modelunit(*arguments, typed=typed)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def told(*arguments: str) -> Any:
    return json.loads(done(*arguments, "--json"))


def started(*arguments: str) -> subprocess.Popen[str]:
    """A command in a process of its own, which can be interrupted."""
    return subprocess.Popen(
        [sys.executable, "-m", "app", *arguments], cwd=ROOT,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Ctrl-C: its exit status, and what it has printed since."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def options_of_commands() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each command as it is typed, and its options by how they are typed."""
    groups: list[tuple[str, Any]] = [("modelunit", whole_command())]
    while groups:
        path, command = groups.pop()
        inner = getattr(command, "commands", {})
        groups += [(f"{path} {name}", one) for name, one in inner.items()]
        if not inner:
            yield path, {typed: option for option in command.params for typed in option.opts}
