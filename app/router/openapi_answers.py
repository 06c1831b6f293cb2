"""What answers look like, for the OpenAPI description: the engine's OpenAI layer writes them, and may write more."""

from typing import Any


def _object(**properties: Any) -> dict[str, Any]:
    """`name_` is for a field that may be missing."""
    fields = {name.removesuffix("_"): schema for name, schema in properties.items()}
    return {
        "type": "object",
        "properties": fields,
        "required": [name for name in fields if f"{name}_" not in properties],
    }


def _or_null(kind: str) -> dict[str, Any]:
    return {"type": [kind, "null"]}


_INTEGER, _STRING, _NUMBER = {"type": "integer"}, {"type": "string"}, {"type": "number"}
_FINISH = {
    "index": _INTEGER,
    "finish_reason": {"enum": ["stop", "length", "tool_calls", None]},
    "stop_reason_": {"type": ["string", "integer", "null"]},
    "logprobs_": {"anyOf": [{"$ref": "#/components/schemas/Logprobs"}, {"type": "null"}]},
}
_NULL = {"type": "null"}
_SAID = {
    "content_": _or_null("string"),
    "reasoning_": _or_null("string"),
    "reasoning_content_": _or_null("string") | {"description": "The same as reasoning, as other servers call it"},
}
_NEVER = {"refusal_": _NULL, "annotations_": _NULL, "audio_": _NULL, "function_call_": _NULL}
_CALLED = {
    "id_": _STRING,
    "type_": {"const": "function"},
    "index_": _INTEGER,
    "function": _object(name_=_STRING, arguments_=_STRING),
}
_CALLS = {"type": "array", "items": {"$ref": "#/components/schemas/AnsweredCall"}}
_USAGE = {"$ref": "#/components/schemas/Usage"}
_COMMON = {"id": _STRING, "created": _INTEGER, "model": _STRING}

ANSWERS: dict[str, Any] = {
    "ChatAnswer": _object(
        object={"const": "chat.completion"},
        choices={
            "type": "array",
            "items": _object(
                message=_object(role={"const": "assistant"}, tool_calls_=_CALLS, **_SAID, **_NEVER), **_FINISH
            ),
        },
        usage=_USAGE,
        **_COMMON,
    ),
    "ChatEvent": _object(
        object={"const": "chat.completion.chunk"},
        choices={
            "type": "array",
            "items": _object(delta=_object(role_=_STRING, tool_calls_=_CALLS, **_SAID), **_FINISH),
        },
        usage_={"anyOf": [_USAGE, {"type": "null"}]},
        **_COMMON,
    ),
    "AnsweredCall": _object(**_CALLED),
    "Logprobs": _object(
        content={
            "type": ["array", "null"],
            "items": _object(token=_STRING, logprob=_NUMBER, bytes_=_or_null("array"), top_logprobs_={"type": "array"}),
        }
    ),
    "Usage": _object(
        prompt_tokens=_INTEGER,
        completion_tokens=_INTEGER,
        total_tokens=_INTEGER,
        prompt_tokens_details_={"anyOf": [_object(cached_tokens_=_or_null("integer")), _NULL]},
    ),
}
"""By name."""
