"""Functions a model may call, and JSON schemas in requests: of bounded size, and pointing nowhere outside."""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

MAX_TOOLS = 128
MAX_SCHEMA_DEPTH = 32
MAX_SCHEMA_VALUES = 4096
"""Of one schema: objects, lists and plain values together."""
MAX_SCHEMA_COUNT = 10_000
"""What a schema may say at most of a length or a number of items: an engine unrolls it."""
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")


class Strict(BaseModel):
    """No coercion, and no field that is not in the table."""

    model_config = ConfigDict(strict=True, extra="forbid")


def _bounded(schema: dict[str, Any]) -> dict[str, Any]:
    left, values = [(schema, 1)], 0
    while left:
        node, depth = left.pop()
        values += 1
        if depth > MAX_SCHEMA_DEPTH:
            raise PydanticCustomError("schema_depth", f"A schema has at most {MAX_SCHEMA_DEPTH} levels")
        if values > MAX_SCHEMA_VALUES:
            raise PydanticCustomError("schema_size", f"A schema has at most {MAX_SCHEMA_VALUES} values")
        if isinstance(node, dict):
            _check_keywords(node)
            left += [(child, depth + 1) for child in node.values()]
        elif isinstance(node, list):
            left += [(child, depth + 1) for child in node]
        elif isinstance(node, float) and not math.isfinite(node):
            raise PydanticCustomError("schema_number", "NaN and Infinity are not JSON")
    return schema


def _check_keywords(node: dict[str, Any]) -> None:
    for keyword in ("$ref", "$dynamicRef"):
        target = node.get(keyword)
        if isinstance(target, str) and not target.startswith("#"):
            raise PydanticCustomError("schema_reference", f"{keyword} may point inside the schema only (#/...)")
    for keyword in _COUNTS:
        count = node.get(keyword)
        if isinstance(count, int | float) and abs(count) > MAX_SCHEMA_COUNT:
            raise PydanticCustomError("schema_count", f"{keyword} is at most {MAX_SCHEMA_COUNT}")


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
