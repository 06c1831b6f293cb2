"""`modelunit endpoints scaling`, `tiers` and `wake`: why there are so many units, and what else could be."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from app.cli.api import Api, Rows
from app.cli.endpoint_names import WhichEndpoint, endpoint_path
from app.cli.endpoint_outcome import Timeout, show_outcome
from app.cli.imagined import imagine
from app.cli.terminal import AsJson, Limit, errors, output, printable, show
from app.cli.times import Since, Until
from app.core.scaling import decided_again, explain

_DECISION = ("at", "from_units", "to_units", "rule", "bound", "running", "queued", "tokens", "units")


def scaling_command(
    endpoint: WhichEndpoint,
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[min=N max=N tier=NAME ...]", help="For --what-if; also concurrency, idle and down."),
    ] = None,
    *,
    explained: Annotated[bool, typer.Option("--explain", help="In words.")] = False,
    replay: Annotated[bool, typer.Option("--replay", help="Decide all again, and say where it differs.")] = False,
    what_if: Annotated[
        bool, typer.Option("--what-if", help="What other rules would have made of the recorded minutes.")
    ] = False,
    minutes: Annotated[int, typer.Option(min=1, max=1440, help="How far --what-if goes back.")] = 1440,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Every change of how many units there are to be, and what it followed from."""
    if explained + replay + what_if > 1:
        raise typer.BadParameter("--explain, --replay and --what-if do not go together")
    if changes and not what_if:
        raise typer.BadParameter("changed rules go with --what-if only")
    api = Api()
    path = endpoint_path(api, endpoint)
    if what_if:
        imagine(api, path, changes or [], minutes, as_json)
        return
    rows = api.newest(f"{path}/scaling", limit, since=since, until=until)
    how: Callable[[Rows, bool], None] = _explain if explained else _replay if replay else _list
    how(rows, as_json)
    if not rows:
        scale = api.call("GET", path, params={"deleted": "true"})["scale"]
        if scale["min_units"] == scale["max_units"]:
            errors.print("a fixed number of units: nothing is decided")


def tiers_command(
    endpoint: WhichEndpoint,
    tps: Annotated[
        float | None, typer.Option(min=1, help="Tokens in and out a second: how many units carry them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What a unit gives on each tier: requests at once, TTFT, TPOT, TPS."""
    api = Api()
    params = {} if tps is None else {"tps": tps}
    found = api.call("GET", f"{endpoint_path(api, endpoint)}/tiers", params=params)
    if as_json:
        show(found, True)
        return
    rows = [
        row
        | {"": "*" if row["name"] == found["tier"] else "", "figures": "measured" if row["measured"] else "estimate"}
        for row in found["tiers"]
    ]
    show(rows, False, "", "name", "concurrency", "ttft_ms", "tpot_ms", "tps", "figures", *(["units"] if tps else []))
    basis = found["basis"]
    errors.print(
        f"each unit on {found['machine_type']} (step {found['step']}), {basis['prompt_tokens']} tokens in and "
        f"{basis['completion_tokens']} out, nothing cached; this endpoint: {found['concurrency']} requests at once"
    )


def wake_command(
    endpoint: WhichEndpoint,
    wait: Annotated[bool, typer.Option(help="Until a unit runs, and tell what it waits for.")] = True,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Start the first unit of one that sleeps, without a request."""
    api = Api()
    woken = api.call("POST", f"{endpoint_path(api, endpoint)}:wake")
    show_outcome(api, woken, wait, timeout, as_json, awake=True)


def _list(rows: Rows, as_json: bool) -> None:
    show(rows if as_json else [row["signals"] | row for row in rows], as_json, *_DECISION)


def _explain(rows: Rows, as_json: bool) -> None:
    if as_json:
        show([row | {"explanation": explain(row)} for row in rows], True)
        return
    for row in rows:
        typer.echo(printable(f"{row['at']} {explain(row)}"))


def _replay(rows: Rows, as_json: bool) -> None:
    """Ends with 1 where a decision would be another one today."""
    different = []
    for row in rows:
        try:
            again = decided_again(row)
            now = {"to_units": again.units, "rule": again.rule, "bound": again.bound}
        except (ValueError, TypeError, KeyError):
            now = {"to_units": None, "rule": "the row has no rules or signals that can be decided upon", "bound": ""}
        if any(row[name] != value for name, value in now.items()):
            different.append({"id": row["id"], "at": row["at"], "then": {name: row[name] for name in now}, "now": now})
    if as_json:
        show({"decisions": len(rows), "equal": not different, "different": different}, True)
    else:
        for one in different:
            output.print(printable(f"{one['at']} then {_told(one['then'])}, now {_told(one['now'])}"))
        output.print(f"{len(rows)} decisions, {f'{len(different)} differ' if different else 'all the same again'}")
    if different:
        raise typer.Exit(1)


def _told(decision: dict[str, Any]) -> str:
    bound = f", {decision['bound']}" if decision["bound"] else ""
    return f"{decision['to_units']} units ({decision['rule']}{bound})"
