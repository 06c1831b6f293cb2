"""Changes of a spec, as PATCH takes them: a JSON merge patch (RFC 7396) of what POST took."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from app.core.errors import InvalidField
from app.core.field_errors import PARAM_LIMIT, field_error
from app.core.specs import EndpointSpec

TOLD_TO_UNITS = ("model", "precision", "machine_type", "max_model_len", "engine")
Effect = Literal["none", "in_place", "rolling"]


def patched(spec: EndpointSpec, changes: Mapping[str, Any]) -> EndpointSpec:
    """The spec with the fields that `changes` names; null puts a field back to what it is when left out.

    Raises InvalidField as for a new spec.
    """
    merged = _merged(spec.model_dump(mode="json"), changes)
    try:
        return EndpointSpec.model_validate_json(json.dumps(merged))
    except ValidationError as error:
        raise field_error(error) from None


def changed_fields(before: EndpointSpec, after: EndpointSpec) -> tuple[str, ...]:
    """The fields in which two specs differ, those of parts by dotted names, such as `scale.max_units`."""
    old, new = (_flat(spec.model_dump(mode="json")) for spec in (before, after))
    return tuple(name for name in new if new[name] != old[name])


def concerns(fields: Iterable[str], *parts: str) -> bool:
    """Whether one of the dotted field names belongs to one of these parts of a spec."""
    return any(field.partition(".")[0] in parts for field in fields)


def effect_of(fields: Sequence[str], *, rests: str | None, restarts: bool) -> tuple[Effect, str]:
    """What a change of these fields does to the units, and why; `rests`: why there are none, such as "stopped"."""
    if rests:
        return "none", f"it is {rests}; it starts with these settings"
    if not restarts:
        return "in_place", "no unit restarts"
    told = [field for field in fields if concerns([field], *TOLD_TO_UNITS)] or fields
    return "rolling", f"units are told {', '.join(told)} when they start: new ones take over, then the old ones leave"


def _merged(document: Mapping[str, Any], patch: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    merged = dict(document)
    for name, value in patch.items():
        if isinstance(value, Mapping) and isinstance(merged.get(name), Mapping):
            merged[name] = _merged(merged[name], value, f"{path}{name}.")
        elif value is not None:
            merged[name] = value
        elif name in document:
            del merged[name]
        else:  # merging would forget it without a word
            param = f"{path}{name}"[:PARAM_LIMIT]
            raise InvalidField(f"{param} is not a field of this API.", param, "unknown_field")
    return merged


def _flat(document: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{path}{name}.")
        else:
            flat[f"{path}{name}"] = value
    return flat
