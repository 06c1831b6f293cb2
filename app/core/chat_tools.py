"""Functions a model may call, and JSON schemas in requests: of bounded size, and pointing nowhere outside."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.core.chat_json import nodes
from app.core.chat_patterns import unrolled

MAX_TOOLS = 128
MAX_SCHEMA_DEPTH = 32
MAX_SCHEMA_VALUES = 4096
"""Of one schema: objects, lists and plain values together."""
MAX_SCHEMA_COUNT = 10_000
"""What a schema that binds the answer may say at most of a length or a number of items: an engine unrolls it."""
MAX_PATTERN_CHARACTERS = 1024
MAX_UNROLLED = 2000
"""Characters that the patterns of schemas that bind the answer come to, written out: more takes an engine seconds."""
TOO_MUCH_UNROLLED = (
    f"its patterns come to more than {MAX_UNROLLED} characters when counted repeats such as {{1,100}} are written out"
)
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")


class Strict(BaseModel):
    """No coercion, and no field that is not in the table."""

    model_config = ConfigDict(strict=True, extra="forbid")


def _bounded(schema: dict[str, Any]) -> dict[str, Any]:
    for node in nodes(schema, "a schema", MAX_SCHEMA_DEPTH, MAX_SCHEMA_VALUES):
        if isinstance(node, dict):
            _check_keywords(node)
    return schema


def _unrollable(schema: dict[str, Any]) -> dict[str, Any]:
    if patterns_unrolled(schema) > MAX_UNROLLED:
        raise ValueError(TOO_MUCH_UNROLLED)
    if keyword := too_large_count(schema):
        raise ValueError(f"{keyword} is at most {MAX_SCHEMA_COUNT}")
    return schema


def too_large_count(schema: dict[str, Any]) -> str | None:
    """The first keyword of a bounded schema that says more than an engine could unroll."""
    found = (
        keyword
        for node in nodes(schema, "a schema", MAX_SCHEMA_DEPTH, MAX_SCHEMA_VALUES)
        if isinstance(node, dict)
        for keyword in _COUNTS
        if isinstance(count := node.get(keyword), int | float) and abs(count) > MAX_SCHEMA_COUNT
    )
    return next(found, None)


def patterns_unrolled(schema: dict[str, Any]) -> int:
    """Characters that all patterns of a bounded schema come to when their repeats are written out."""
    return sum(
        unrolled(pattern)
        for node in nodes(schema, "a schema", MAX_SCHEMA_DEPTH, MAX_SCHEMA_VALUES)
        if isinstance(node, dict)
        for name, value in node.items()
        for pattern in (
            (value,) if name == "pattern" else value if name == "patternProperties" and isinstance(value, dict) else ()
        )
        if isinstance(pattern, str)
    )


def _check_keywords(node: dict[str, Any]) -> None:
    for keyword in ("$ref", "$dynamicRef"):
        target = node.get(keyword)
        if isinstance(target, str) and not target.startswith("#"):
            raise ValueError(f"{keyword} may point inside the schema only (#/...)")
    pattern = node.get("pattern")
    if isinstance(pattern, str) and len(pattern) > MAX_PATTERN_CHARACTERS:
        raise ValueError(f"pattern has at most {MAX_PATTERN_CHARACTERS} characters")


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
    schema_: Annotated[JsonSchema, AfterValidator(_unrollable), Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(Strict):
    """Text, any JSON object, or JSON of one schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None
