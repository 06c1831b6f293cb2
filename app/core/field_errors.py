"""From pydantic's validation errors to ours: which field, what came, what is allowed. Never a caller's text."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from app.core.errors import BadRequest, InvalidField

_TAGS = (("finetune",), ("quantize",), ("validate",))
"""Bodies of several kinds are told apart by their `type`, which pydantic puts before the field's name."""
PARAM_LIMIT = 128
"""Callers make up the names of unknown fields: no error repeats more than this of one."""


def field_error(error: ValidationError) -> BadRequest:
    """The error to answer with: it names the first wrong field, what came and what is allowed."""
    return explain(error.errors(include_url=False))


def explain(errors: Sequence[Any]) -> BadRequest:
    """Like field_error, from pydantic's list of error details.

    Of the errors of one field the one that got furthest into the value is told: with unions, the branch that was meant.
    """
    errors = [{**error, "loc": _without_tag(tuple(error["loc"]))} for error in errors]
    field = errors[0]["loc"][:1]
    told = max((e for e in errors if e["loc"][:1] == field), key=lambda e: (len(_path(e["loc"])), _about_value(e)))
    return _explain(told)


def _without_tag(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    return loc[1:] if loc[:1] in _TAGS and len(loc) > 1 else loc  # alone it is a field that is called like a tag


def _about_value(error: Any) -> bool:
    """Whether the type was right and the value was not."""
    return not error["type"].endswith("_type")


def _path(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """`loc` without the names that pydantic gives to the branches of a union and to the keys of a mapping."""
    if loc[-1:] == ("[key]",):
        loc = loc[:-2]
    return tuple(part for i, part in enumerate(loc) if i == 0 or isinstance(part, int) or not _is_branch(part))


def _is_branch(part: str) -> bool:
    return part == "str" or part.startswith(("list[", "literal[", "constrained-", "function-"))


def _explain(error: Any) -> BadRequest:
    if error["type"] == "json_invalid":
        return BadRequest("The body is not valid JSON.", code="invalid_json")
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        told = str(error.get("ctx", {}).get("expected_tags", "")).replace("'", "").split(", ")
        allowed = ", ".join(sorted(filter(None, told)) or (tag for (tag,) in _TAGS))
        return InvalidField(f"type is missing or unknown; allowed: {allowed}.", "type")
    if not error["loc"]:
        return BadRequest("The body must be a JSON object.", code="invalid_json")
    path = _path(error["loc"])
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    param = param[:PARAM_LIMIT]
    if error["type"] == "missing":
        return InvalidField(f"{param} is missing.", param)
    if error["type"] == "extra_forbidden":
        return InvalidField(f"{param} is not a field of this API.", param, "unknown_field")
    subject = f"A key of {param}" if error["loc"][-1] == "[key]" else param
    return InvalidField(f"{subject} is {_shown(error['input'])}. {error['msg']}.", param)


def _shown(value: Any) -> str:
    """A wrong value as far as it may be repeated: callers' texts never come back in errors or logs."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return str(value)[:32]
    kinds: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}
    size = f" of length {len(value)}" if isinstance(value, str | list) else ""
    return kinds.get(type(value), "a value") + size
