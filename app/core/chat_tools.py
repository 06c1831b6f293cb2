"""Functions a model may call, and JSON schemas in requests: of bounded size, and pointing nowhere outside."""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_TOOLS = 128
MAX_SCHEMA_DEPTH = 32
MAX_SCHEMA_VALUES = 4096
"""Of one schema: objects, lists and plain values together."""
MAX_SCHEMA_COUNT = 10_000
"""What a schema may say at most of a length or a number of items: an engine unrolls it."""
MAX_NUMBER = (1 << 64) - 1
MAX_PATTERN_CHARACTERS = 1024
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")


class Strict(BaseModel):
    """No coercion, and no field that is not in the table."""

    model_config = ConfigDict(strict=True, extra="forbid")


def _bounded(schema: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [schema]
    values = depth = 0
    while level:
        values, depth = values + len(level), depth + 1
        if depth > MAX_SCHEMA_DEPTH:
            raise ValueError(f"a schema has at most {MAX_SCHEMA_DEPTH} levels")
        groups = [node.values() if isinstance(node, dict) else node for node in level if isinstance(node, dict | list)]
        if values + sum(map(len, groups)) > MAX_SCHEMA_VALUES:
            raise ValueError(f"a schema has at most {MAX_SCHEMA_VALUES} values")
        for node in level:
            _check_value(node)
        level = [child for group in groups for child in group]
    return schema


def _check_value(node: Any) -> None:
    if isinstance(node, dict):
        _check_keywords(node)
    elif isinstance(node, float) and not math.isfinite(node):
        raise ValueError("NaN and Infinity are not JSON")
    elif isinstance(node, int) and not -MAX_NUMBER <= node <= MAX_NUMBER:
        raise ValueError("whole numbers have at most 64 bits")


def _check_keywords(node: dict[str, Any]) -> None:
    for keyword in ("$ref", "$dynamicRef"):
        target = node.get(keyword)
        if isinstance(target, str) and not target.startswith("#"):
            raise ValueError(f"{keyword} may point inside the schema only (#/...)")
    pattern = node.get("pattern")
    if isinstance(pattern, str) and len(pattern) > MAX_PATTERN_CHARACTERS:
        raise ValueError(f"pattern has at most {MAX_PATTERN_CHARACTERS} characters")
    for keyword in _COUNTS:
        count = node.get(keyword)
        if isinstance(count, int | float) and abs(count) > MAX_SCHEMA_COUNT:
            raise ValueError(f"{keyword} is at most {MAX_SCHEMA_COUNT}")


JsonSchema = Annotated[dict[str, Any], AfterValidator(_bounded)]
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
_Description = Annotated[str, Field(max_length=16_384)]


class Function(Strict):
    """What a model is told of a function."""

    name: FunctionName
    description: _Description | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class Tool(Strict):
    """A function is the only kind of tool."""

    type: Literal["function"]
    function: Function


class FunctionChoice(Strict):
    """Which function, by its name."""

    name: FunctionName


class NamedTool(Strict):
    """The one function that is to be called."""

    type: Literal["function"]
    function: FunctionChoice


class Schema(Strict):
    """What the answer's JSON has to look like."""

    name: FunctionName
    description: _Description | None = None
    schema_: Annotated[JsonSchema, Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(Strict):
    """Text, any JSON object, or JSON of one schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None
