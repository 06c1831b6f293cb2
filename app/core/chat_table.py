"""The fields of a chat request as rows for people, made of the table that checks requests."""

from typing import Any, NamedTuple

from app.core.chat_rules import ChatRequest
from app.core.chat_terms import PROFILES

_BOUNDS = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "above"),
    ("maximum", "at most"),
    ("minLength", "characters at least"),
    ("maxLength", "characters at most"),
    ("minItems", "items at least"),
    ("maxItems", "items at most"),
    ("maxProperties", "entries at most"),
)


class FieldRow(NamedTuple):
    """One field; texts, empty where there is nothing to say."""

    name: str
    type: str
    """By the names of JSON; 'refused' for what is not served."""
    range: str
    default: str
    maas: str
    """The default of an endpoint with request_defaults.profile maas, where it is another."""
    note: str


def fields_table() -> list[FieldRow]:
    """Every field that there is, in the order of the table."""
    schema = ChatRequest.model_json_schema()
    return [_row(name, field, schema["$defs"]) for name, field in schema["properties"].items()]


def _row(name: str, field: dict[str, Any], parts: dict[str, Any]) -> FieldRow:
    forms = [_resolved(form, parts) for form in field.get("anyOf", [field]) if form.get("type") != "null"]
    default, maas = field.get("default"), PROFILES["maas"].get(name)
    return FieldRow(
        name,
        " or ".join(dict.fromkeys(_type(form) for form in forms)) or "refused",
        "; ".join(filter(None, map(_range, forms))),
        "" if default is None else str(default).lower(),
        "" if maas is None else str(maas),
        field["description"],
    )


def _resolved(form: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    reference = form.get("$ref")
    return parts[reference.rpartition("/")[2]] if reference else form


def _type(form: dict[str, Any]) -> str:
    return str(form.get("type", "any"))


def _range(form: dict[str, Any]) -> str:
    if "enum" in form or "const" in form:
        return ", ".join(form.get("enum") or [form["const"]])
    return ", ".join(f"{words} {form[keyword]}" for keyword, words in _BOUNDS if keyword in form)
