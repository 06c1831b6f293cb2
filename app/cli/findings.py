"""A model or a job as lines, with what was found in its weights."""

from typing import Any

import typer

from app.cli.terminal import output, show


def show_with_findings(record: dict[str, Any], as_json: bool) -> None:
    """Print a model or a job, and below it each finding."""
    if as_json:
        show(record, True)
        return
    show({name: value for name, value in record.items() if name != "findings"}, False)
    for found in record.get("findings", []):
        where = " ".join(str(found[field]) for field in ("file", "tensor") if found[field])
        output.print(f"\n{found['severity']} {found['code']}{': ' + where if where else ''}\n  {found['message']}")
        for field in ("found", "expected", "fix"):
            if found[field]:
                output.print(f"  {field}: {found[field]}")


def show_outcome(record: dict[str, Any], as_json: bool) -> None:
    """The same of what was wished for: where it failed the command ends with 1."""
    show_with_findings(record, as_json)
    if record["state"] in ("failed", "stopped"):
        raise typer.Exit(1)
