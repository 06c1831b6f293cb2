"""`modelunit endpoints`: make, change, stop and remove them."""

from typing import Annotated, Any

import typer

from app.cli.api import Api, Rows, given
from app.cli.endpoint_names import WhichEndpoint, endpoint_path
from app.cli.endpoint_options import nested, with_field_options
from app.cli.endpoint_outcome import Timeout, Wait, show_outcome
from app.cli.endpoint_reports import events_command, logs_command, metrics_command, snippet_command
from app.cli.scaling import scaling_command, tiers_command, wake_command
from app.cli.terminal import AsJson, Confirm, commands, output, show, show_done
from app.core.records import EndpointState

endpoints = commands("Endpoints: what people call.")


@endpoints.command("list")
def list_command(
    state: Annotated[EndpointState | None, typer.Option()] = None,
    model: Annotated[str | None, typer.Option(help="A model's ID or name.")] = None,
    name: Annotated[str | None, typer.Option()] = None,
    machine_type: Annotated[str | None, typer.Option()] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Those that can be restored.")] = False,
    as_json: AsJson = False,
) -> None:
    """List endpoints. Meant where no command is named."""
    wanted: dict[str, Any] = {"state": state, "model": model, "name": name, "machine_type": machine_type}
    show_endpoints(Api().list("endpoints", **wanted, deleted="true" if deleted else None), as_json)


@endpoints.command("get")
def get_command(
    endpoint: WhichEndpoint,
    deleted: Annotated[bool, typer.Option("--deleted", help="Also one that can be restored.")] = False,
    as_json: AsJson = False,
) -> None:
    """Everything about one endpoint."""
    api = Api()
    params = {"deleted": "true"} if deleted else {}
    show(api.call("GET", endpoint_path(api, endpoint, deleted=deleted), params=params), as_json)


@endpoints.command("create")
@with_field_options
def create_command(
    name: Annotated[str, typer.Argument(help="1 to 64 letters (Chinese too), digits, '_', '-'.")],
    model: Annotated[str, typer.Option(help="A model's ID or name.")],
    fields: dict[str, Any],
    wait: Wait = True,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Serve a model. Ends with 1 when it cannot serve; Ctrl-C leaves the wish standing."""
    api = Api()
    made = api.call("POST", "endpoints", json=nested({"name": name, "model": model, **fields}))
    show_outcome(api, made, wait, timeout, as_json)


@endpoints.command("patch")
@with_field_options
def patch_command(
    endpoint: WhichEndpoint,
    *,
    name: Annotated[str | None, typer.Option()] = None,
    model: Annotated[str | None, typer.Option(help="A model's ID or name.")] = None,
    fields: dict[str, Any],
    clear: Annotated[
        list[str] | None, typer.Option(help="Back to the default, such as auto_stop_s or limits.qps_per_unit; repeat.")
    ] = None,
    if_match: Annotated[str | None, typer.Option("--if-match", help="Only if its etag is still this one.")] = None,
    wait: Wait = True,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Change what is named, in place where that is possible; else new units take over before the old ones leave."""
    changes = nested(given(name=name, model=model) | fields | dict.fromkeys(clear or []))
    if not changes:
        raise typer.BadParameter("nothing is to be changed: name at least one field")
    api = Api()
    headers = {"If-Match": if_match} if if_match else {}
    changed = api.call("PATCH", endpoint_path(api, endpoint), json=changes, headers=headers)
    if not as_json:
        output.print(f"{changed['effect']}: {changed['effect_reason']}")
    show_outcome(api, changed, wait and changed["state"] != "stopped", timeout, as_json)


@endpoints.command("start")
def start_command(endpoint: WhichEndpoint, wait: Wait = True, timeout: Timeout = None, as_json: AsJson = False) -> None:
    """Serve again after a stop."""
    api = Api()
    started = api.call("POST", f"{endpoint_path(api, endpoint)}:start")
    show_outcome(api, started, wait, timeout, as_json)


@endpoints.command("stop")
def stop_command(endpoint: WhichEndpoint, as_json: AsJson = False) -> None:
    """Let its units finish what they do and leave; settings and keys stay."""
    api = Api()
    show(api.call("POST", f"{endpoint_path(api, endpoint)}:stop"), as_json)


@endpoints.command("restore")
def restore_command(
    endpoint: WhichEndpoint, wait: Wait = True, timeout: Timeout = None, as_json: AsJson = False
) -> None:
    """Bring back a deleted endpoint with its ID, settings and keys."""
    api = Api()
    restored = api.call("POST", f"{endpoint_path(api, endpoint, deleted=True)}:restore")
    show_outcome(api, restored, wait, timeout, as_json)


@endpoints.command("delete")
def delete_command(
    endpoint: WhichEndpoint,
    confirm: Confirm,
    purge: Annotated[bool, typer.Option("--purge", help="Forget one that is deleted, for good.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove an endpoint; it can be restored for a while."""
    api = Api()
    params = {"purge": "true"} if purge else {}
    gone = api.delete(endpoint_path(api, endpoint, deleted=purge), confirm, **params)
    done = "is forgotten" if purge else "is being removed; 'restore' brings it back"
    show_done(f"{gone['id']} {done}", gone, as_json)


endpoints.command("events")(events_command)
endpoints.command("logs")(logs_command)
endpoints.command("metrics")(metrics_command)
endpoints.command("snippet")(snippet_command)
endpoints.command("scaling")(scaling_command)
endpoints.command("tiers")(tiers_command)
endpoints.command("wake")(wake_command)


def show_endpoints(rows: Rows, as_json: bool) -> None:
    """As a table, or as JSON."""
    if not as_json:
        rows = [row | {"units": f"{row['units']['running']}/{row['units']['target']}"} for row in rows]
    show(rows, as_json, "id", "name", "model", "machine_type", "units", "state", "reason")
