"""`modelunit endpoints`: make, change, stop and remove them."""

from typing import Annotated, Any

import typer

from app.cli_endpoint import WhichEndpoint, endpoint_id, watched
from app.cli_endpoint_watch import events_command, logs_command, metrics_command, snippet_command
from app.cli_times import seconds
from app.terminal import Api, AsJson, Confirm, commands, output, show

endpoints = commands("Endpoints: what people call.")

Description = Annotated[str | None, typer.Option(help="At most 256 characters.")]
Precision = Annotated[str | None, typer.Option(help="One of the model's versions; BF16 means not quantized.")]
MachineType = Annotated[
    str | None, typer.Option(help="One of 'modelunit machine-types'; left out, the platform chooses.")
]
MinUnits = Annotated[int | None, typer.Option(help="0 lets it sleep while nobody calls.")]
MaxUnits = Annotated[int | None, typer.Option()]
Qps = Annotated[float | None, typer.Option(help="Requests a second for each running unit; beyond it callers get 429.")]
MaxModelLen = Annotated[int | None, typer.Option(help="Longest prompt plus answer, in tokens.")]
AutoStop = Annotated[
    int | None, typer.Option(parser=seconds, metavar="TIME", help="Stop after so long in service, such as 4h.")
]
Networks = Annotated[
    list[str] | None, typer.Option("--allowed-network", help="A network (CIDR) that may call it; repeat for more.")
]
PrefixCaching = Annotated[bool | None, typer.Option(help="Keep the KV cache of common beginnings.")]
EnforceEager = Annotated[bool | None, typer.Option(help="Skip compilation: starts sooner.")]
KvCacheBytes = Annotated[int | None, typer.Option(help="Of an engine on CPU.")]
MaxNumSeqs = Annotated[int | None, typer.Option(help="Requests that an engine works on at once.")]
Threads = Annotated[int | None, typer.Option(help="Of an engine on CPU.")]
Wait = Annotated[bool, typer.Option(help="Until it serves, and tell what it waits for.")]
IfMatch = Annotated[str | None, typer.Option("--if-match", help="Only if its etag is still this one.")]


@endpoints.command("list")
def list_command(
    state: Annotated[str | None, typer.Option(help="Such as healthy, stopped or abnormal.")] = None,
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
    show(api.call("GET", f"endpoints/{endpoint_id(api, endpoint, deleted=deleted)}", params=params), as_json)


@endpoints.command("create")
def create_command(
    name: Annotated[str, typer.Argument(help="1 to 64 letters (Chinese too), digits, '_', '-'.")],
    model: Annotated[str, typer.Option(help="A model's ID or name.")],
    description: Description = None,
    precision: Precision = None,
    machine_type: MachineType = None,
    min_units: MinUnits = None,
    max_units: MaxUnits = None,
    qps_per_unit: Qps = None,
    max_model_len: MaxModelLen = None,
    auto_stop: AutoStop = None,
    networks: Networks = None,
    prefix_caching: PrefixCaching = None,
    enforce_eager: EnforceEager = None,
    kv_cache_bytes: KvCacheBytes = None,
    max_num_seqs: MaxNumSeqs = None,
    threads: Threads = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Serve a model. Ends with 1 when it cannot serve; Ctrl-C leaves the wish standing."""
    body = _nested({
        "name": name, "model": model, "description": description, "precision": precision, "machine_type": machine_type,
        "scale.min_units": min_units, "scale.max_units": max_units, "limits.qps_per_unit": qps_per_unit,
        "max_model_len": max_model_len, "auto_stop_s": auto_stop, "allowed_networks": networks or None,
        "engine.prefix_caching": prefix_caching, "engine.enforce_eager": enforce_eager,
        "engine.kv_cache_bytes": kv_cache_bytes, "engine.max_num_seqs": max_num_seqs, "engine.threads": threads,
    })  # fmt: skip
    api = Api()
    _end(api, api.call("POST", "endpoints", json=body), wait, as_json)


@endpoints.command("patch")
def patch_command(
    endpoint: WhichEndpoint,
    name: Annotated[str | None, typer.Option()] = None,
    model: Annotated[str | None, typer.Option(help="A model's ID or name.")] = None,
    description: Description = None,
    precision: Precision = None,
    machine_type: MachineType = None,
    min_units: MinUnits = None,
    max_units: MaxUnits = None,
    qps_per_unit: Qps = None,
    max_model_len: MaxModelLen = None,
    auto_stop: AutoStop = None,
    networks: Networks = None,
    prefix_caching: PrefixCaching = None,
    enforce_eager: EnforceEager = None,
    kv_cache_bytes: KvCacheBytes = None,
    max_num_seqs: MaxNumSeqs = None,
    threads: Threads = None,
    clear: Annotated[
        list[str] | None, typer.Option(help="Back to the default, such as auto_stop_s or limits.qps_per_unit; repeat.")
    ] = None,
    if_match: IfMatch = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Change what is named, in place where that is possible; else new units take over before the old ones leave."""
    changes = {
        "name": name, "model": model, "description": description, "precision": precision, "machine_type": machine_type,
        "scale.min_units": min_units, "scale.max_units": max_units, "limits.qps_per_unit": qps_per_unit,
        "max_model_len": max_model_len, "auto_stop_s": auto_stop, "allowed_networks": networks or None,
        "engine.prefix_caching": prefix_caching, "engine.enforce_eager": enforce_eager,
        "engine.kv_cache_bytes": kv_cache_bytes, "engine.max_num_seqs": max_num_seqs, "engine.threads": threads,
    }  # fmt: skip
    body = _nested(changes, cleared=clear or [])
    if not body:
        raise typer.BadParameter("nothing is to be changed: name at least one field")
    api = Api()
    headers = {"If-Match": if_match} if if_match else {}
    found = api.call("PATCH", f"endpoints/{endpoint_id(api, endpoint)}", json=body, headers=headers)
    if not as_json:
        output.print(f"{found['effect']}: {found['effect_reason']}")
    _end(api, found, wait and found["state"] != "stopped", as_json)


@endpoints.command("start")
def start_command(endpoint: WhichEndpoint, wait: Wait = True, as_json: AsJson = False) -> None:
    """Serve again after a stop."""
    api = Api()
    _end(api, api.call("POST", f"endpoints/{endpoint_id(api, endpoint)}:start"), wait, as_json)


@endpoints.command("stop")
def stop_command(endpoint: WhichEndpoint, as_json: AsJson = False) -> None:
    """Let its units finish what they do and leave; settings and keys stay."""
    api = Api()
    _end(api, api.call("POST", f"endpoints/{endpoint_id(api, endpoint)}:stop"), False, as_json)


@endpoints.command("restore")
def restore_command(endpoint: WhichEndpoint, wait: Wait = True, as_json: AsJson = False) -> None:
    """Bring back a deleted endpoint with its ID, settings and keys."""
    api = Api()
    _end(api, api.call("POST", f"endpoints/{endpoint_id(api, endpoint, deleted=True)}:restore"), wait, as_json)


@endpoints.command("delete")
def delete_command(
    endpoint: WhichEndpoint,
    confirm: Confirm,
    purge: Annotated[bool, typer.Option("--purge", help="Forget one that is deleted, for good.")] = False,
) -> None:
    """Remove an endpoint; it can be restored for a while."""
    api = Api()
    params = {"confirm": confirm} | ({"purge": "true"} if purge else {})
    gone = api.call("DELETE", f"endpoints/{endpoint_id(api, endpoint, deleted=purge)}", params=params)
    output.print(f"{gone['id']} is forgotten" if purge else f"{gone['id']} is being removed; 'restore' brings it back")


endpoints.command("events")(events_command)
endpoints.command("logs")(logs_command)
endpoints.command("metrics")(metrics_command)
endpoints.command("snippet")(snippet_command)


def show_endpoints(rows: list[dict[str, Any]], as_json: bool) -> None:
    """As a table, or as JSON."""
    if not as_json:
        rows = [row | {"units": f"{row['units']['running']}/{row['units']['target']}"} for row in rows]
    show(rows, as_json, "id", "name", "model", "machine_type", "units", "state", "reason")


def _end(api: Api, endpoint: dict[str, Any], wait: bool, as_json: bool) -> None:
    """Print the endpoint, once it serves if that is to be waited for; one that cannot serve ends with 1."""
    serves = True
    if wait:
        endpoint, serves = watched(api, endpoint["id"])
    show(endpoint, as_json)
    if not serves:
        raise typer.Exit(1)


def _nested(fields: dict[str, Any], cleared: list[str] | None = None) -> dict[str, Any]:
    """The body that says this: dotted names are fields of fields, what was not given is left out."""
    body: dict[str, Any] = {}
    given = {name: value for name, value in fields.items() if value is not None}
    for name, value in {**given, **dict.fromkeys(cleared or [])}.items():
        outer, dot, inner = name.partition(".")
        if dot:
            body.setdefault(outer, {})[inner] = value
        else:
            body[outer] = value
    return body
