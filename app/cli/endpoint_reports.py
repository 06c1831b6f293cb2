"""`modelunit endpoints events`, `logs`, `metrics` and `snippet`: how an endpoint does, and how to call it."""

from collections.abc import Iterable
from typing import Annotated, Any, get_args

import typer

from app.cli.api import Api, given
from app.cli.endpoint_names import WhichEndpoint, endpoint_path
from app.cli.terminal import AsJson, Limit, Search, errors, printable, show
from app.cli.times import Since, Until
from app.core.snippets import Client

_FIGURES = (
    "minute", "requests", "errors", "refused", "ttft_ms", "tpot_ms", "prompt_tokens", "completion_tokens", "queue",
    "units", "unit_s", "cpu_pct", "memory_mib", "kv_cache_pct", "accelerator_pct",
)  # fmt: skip


def events_command(
    endpoint: WhichEndpoint,
    kind: Annotated[str | None, typer.Option(help="Such as created, healthy or changed.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """What happened to it, and who did it; for a deleted one name its ID."""
    api = Api()
    rows = api.newest(f"{endpoint_path(api, endpoint)}/events", limit, kind=kind, since=since, until=until)
    show(rows, as_json, "created_at", "kind", "message", "actor")


def logs_command(
    endpoint: WhichEndpoint,
    search: Search = "",
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    everything: Annotated[bool, typer.Option("--all", help="All that is kept.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="And what comes, for an hour.")] = False,
    as_json: AsJson = False,
) -> None:
    """What its units wrote: the last lines."""
    if follow and (everything or as_json or until):
        raise typer.BadParameter("--follow goes together with --search and --since only")
    api = Api()
    path = f"{endpoint_path(api, endpoint)}/logs"
    wanted = given(search=search or None, since=since, until=until)
    if as_json:
        show(api.list(path, **wanted) if everything else api.newest(path, limit, **wanted), True)
        return
    lines: Iterable[str]
    if follow or everything:
        lines = api.lines(path, params=wanted | {"follow" if follow else "download": "true"})
    else:
        lines = (f"{row['created_at']} {row['unit']} {row['message']}" for row in api.newest(path, limit, **wanted))
    any_line = False
    for line in lines:
        if line:  # an empty one only shows that the connection lives
            typer.echo(printable(line))
            any_line = True
    if not any_line:
        errors.print(_why_none(api, path, search, given(since=since, until=until)))


def metrics_command(
    endpoint: WhichEndpoint,
    minutes: Annotated[int, typer.Option(min=1, max=1440, help="How far back.")] = 60,
    as_json: AsJson = False,
) -> None:
    """Its figures by minute: what callers got, and what the units took."""
    api = Api()
    found = api.call("GET", f"{endpoint_path(api, endpoint)}/metrics", params={"minutes": minutes})
    if as_json:
        show(found, True)
        return
    rows = [_row(service, use) for service, use in zip(found["service"], found["resources"], strict=True)]
    show(rows, False, *_FIGURES)
    if not rows:
        errors.print(f"nothing has been heard of it in the last {minutes} minutes")


def snippet_command(
    endpoint: WhichEndpoint,
    client: Annotated[str, typer.Option(help=", ".join(get_args(Client)))] = "openai",
    as_json: AsJson = False,
) -> None:
    """Code that calls it, ready to run with a key in the environment."""
    api = Api()
    found = api.call("GET", f"{endpoint_path(api, endpoint)}/snippet", params={"client": client})
    if as_json:
        show(found, True)
    else:
        typer.echo(printable(found["code"]), nl=False)


def _why_none(api: Api, path: str, search: str, window: dict[str, str]) -> str:
    """Why a log has no line to show."""
    if search and api.newest(path, 1, **window):
        return f"no line contains {search!r}"
    if window and api.newest(path, 1):
        return "its units wrote nothing in that time"
    return "its units have written nothing yet"


def _row(service: dict[str, Any], use: dict[str, Any]) -> dict[str, Any]:
    memory = use["memory_bytes"]
    return service | use | {"memory_mib": None if memory is None else round(memory / (1 << 20))}
