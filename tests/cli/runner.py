"""`modelunit` in the process of the test."""

from typer.testing import CliRunner, Result

from app.cli import app


def modelunit(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=typed)
