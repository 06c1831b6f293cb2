"""From pydantic's errors about a chat request to the one that its caller gets. Never a caller's text."""

from typing import Any

from pydantic import BaseModel, ValidationError

from app.core.chat_messages import OTHER_PARTS
from app.core.chat_tools import NamedTool
from app.core.errors import BadRequest, InvalidField
from app.core.field_errors import explain

_ROLES = "'system', 'developer', 'user', 'assistant' or 'tool'"
MOST_TOLD = 2000
"""Wrong values of one body that are looked at; with more of them it is not worth the time."""


def refusal(error: ValidationError, form: type[BaseModel]) -> BadRequest:
    """Which field of this form is wrong, what came and what is allowed."""
    if error.error_count() > MOST_TOLD:
        return BadRequest(f"The body has {error.error_count()} wrong values; see /openapi.json for what is allowed.")
    errors = [_plain(detail) for detail in error.errors(include_url=False, include_context=False)]
    first = errors[0]
    loc, kind = first["loc"], first["type"]
    if kind == "none_required" and len(loc) == 1:
        name = str(loc[0])
        return InvalidField(f"{name} is {form.model_fields[name].description}.", name, "unsupported_parameter")
    told = explain(errors)
    if told.param and told.param.endswith(".type") and (part := _part(errors, told.param)):
        return InvalidField(
            f"{told.param} is {part}, but the models here read text only; allowed is 'text'. Nothing is fetched.",
            told.param,
            "unsupported_content",
        )
    return told


def _plain(detail: Any) -> dict[str, Any]:
    """The same without what pydantic puts into the place: the role of a message, the one form of a tool_choice."""
    loc, kind = detail["loc"], detail["type"]
    plain: dict[str, Any] = dict(detail)
    if loc[:1] == ("tool_choice",):
        plain["loc"] = tuple(part for part in loc if part != NamedTool.__name__)
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        plain |= {"loc": (*loc, "role"), "type": "missing", "msg": f"Input should be {_ROLES}"}
        if kind == "union_tag_invalid":
            plain |= {"input": detail["input"]["role"], "type": "literal_error"}
    elif loc[:1] == ("messages",):
        plain["loc"] = (*loc[:2], *loc[3:])
    return plain


def _part(errors: list[dict[str, Any]], param: str) -> str | None:
    """The kind of content that a message was to have, where it is one that other models take."""
    sent = next((e["input"] for e in errors if e["type"] == "literal_error" and e["loc"][-1] == "type"), None)
    return sent if param.startswith("messages[") and sent in OTHER_PARTS else None
