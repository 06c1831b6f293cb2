"""What an endpoint is to be, as options: those that `create` and `patch` have in common."""

import functools
import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Annotated, Any

import typer

from app.cli.times import seconds

_FIELDS: dict[str, Any] = {
    "description": Annotated[str | None, typer.Option(help="At most 256 characters.")],
    "precision": Annotated[str | None, typer.Option(help="One of the model's versions; BF16 means not quantized.")],
    "machine_type": Annotated[
        str | None, typer.Option(help="One of 'modelunit machine-types'; left out, the platform chooses.")
    ],
    "scale.min_units": Annotated[int | None, typer.Option(help="0 lets it sleep while nobody calls.")],
    "scale.max_units": Annotated[int | None, typer.Option(help="Both in steps of the machine type.")],
    "scale.tier": Annotated[
        str | None, typer.Option(help="low, medium or high: a lower one answers faster and scales sooner.")
    ],
    "scale.target_concurrency": Annotated[
        int | None, typer.Option(help="Requests at once for each unit, instead of a tier.")
    ],
    "scale.idle_to_zero_s": Annotated[
        int | None,
        typer.Option("--idle-to-zero", parser=seconds, metavar="TIME", help="Sleep after so long without a request."),
    ],
    "scale.down_after_s": Annotated[
        int | None,
        typer.Option("--down-after", parser=seconds, metavar="TIME", help="Fewer units once they were enough so long."),
    ],
    "scale.drain_s": Annotated[
        int | None,
        typer.Option("--drain", parser=seconds, metavar="TIME", help="What a unit that goes may still finish."),
    ],
    "limits.qps_per_unit": Annotated[
        float | None, typer.Option(help="Requests a second for each running unit; beyond it callers get 429.")
    ],
    "limits.max_queued": Annotated[
        int | None, typer.Option(help="Requests that may wait for a unit; beyond it callers get 429.")
    ],
    "max_model_len": Annotated[int | None, typer.Option(help="Longest prompt plus answer, in tokens.")],
    "request_defaults.profile": Annotated[
        str | None, typer.Option(help="openai or maas: whose defaults hold for what a chat request leaves out.")
    ],
    "features.structured_output": Annotated[
        bool | None, typer.Option(help="Let callers ask for answers in JSON, by response_format.")
    ],
    "accept_quality": Annotated[
        bool | None, typer.Option(help="Serve a version that has failed its quality gate; the audit keeps who says so.")
    ],
    "auto_stop_s": Annotated[
        int | None,
        typer.Option("--auto-stop", parser=seconds, metavar="TIME", help="Stop after so long in service, such as 4h."),
    ],
    "allowed_networks": Annotated[
        list[str] | None, typer.Option("--allowed-network", help="A network (CIDR) that may call it; repeat for more.")
    ],
    "engine.prefix_caching": Annotated[bool | None, typer.Option(help="Keep the KV cache of common beginnings.")],
    "engine.enforce_eager": Annotated[bool | None, typer.Option(help="Skip compilation: starts sooner.")],
    "engine.kv_cache_bytes": Annotated[int | None, typer.Option(help="Of an engine on CPU.")],
    "engine.max_num_seqs": Annotated[int | None, typer.Option(help="Requests that an engine works on at once.")],
    "engine.threads": Annotated[int | None, typer.Option(help="Of an engine on CPU.")],
}
"""Field of the API -> its option, which has the name of the last part where it names no other."""


def with_field_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with these options where it has a parameter `fields`, which gets the fields that were named."""
    signature = inspect.signature(command)
    options = [
        Parameter(_option(field), Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for field, annotation in _FIELDS.items()
    ]
    parameters: list[Parameter] = []
    for own in signature.parameters.values():
        parameters += options if own.name == "fields" else [own.replace(kind=Parameter.KEYWORD_ONLY)]

    @functools.wraps(command)
    def with_fields(**typed: Any) -> None:
        values = {field: typed.pop(_option(field)) for field in _FIELDS}
        command(**typed, fields={field: value for field, value in values.items() if value not in (None, [])})

    with_fields.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return with_fields


def nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The body that says this: dotted names are fields of fields."""
    body: dict[str, Any] = {}
    for name, value in fields.items():
        outer, dot, inner = name.partition(".")
        if dot:
            body.setdefault(outer, {})[inner] = value
        else:
            body[outer] = value
    return body


def _option(field: str) -> str:
    return field.rpartition(".")[2]
