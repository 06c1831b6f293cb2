"""Turns as clients send them back, and as an engine takes them: chat templates may show whatever a turn has."""

from typing import Any

from app.core.chat_messages import AssistantMessage, Message

_OF_A_MESSAGE = frozenset({"parsed", "encrypted_content"})
_OF_A_PART = frozenset({"cache_control", "prompt_cache_breakpoint"})
_OF_A_FUNCTION = frozenset({"parsed_arguments"})


def is_for_the_engine(message: Message) -> bool:
    """Whether an engine can have it as it came."""
    if "name" in message.model_fields_set and message.name is None:
        return False
    parts = message.content if isinstance(message.content, list) else ()
    if any(part.model_fields_set & _OF_A_PART for part in parts):
        return False
    if not isinstance(message, AssistantMessage):
        return True
    calls = message.tool_calls or ()
    return not (
        (message.content is None and not calls)
        or message.model_fields_set & _OF_A_MESSAGE
        or any(call.function.model_fields_set & _OF_A_FUNCTION or "type" not in call.model_fields_set for call in calls)
    )


def told(message: dict[str, Any]) -> dict[str, Any]:
    """The same without what has no effect, as vLLM has it.

    A call has a type, no name is null, nor a content where nothing is called.
    """
    kept = _without(message, _OF_A_MESSAGE)
    if kept.get("name") is None:
        kept.pop("name", None)
    if isinstance(kept.get("content"), list):
        kept["content"] = [_without(part, _OF_A_PART) for part in kept["content"]]
    if kept.get("tool_calls"):
        kept["tool_calls"] = [
            {"type": "function"} | call | {"function": _without(call["function"], _OF_A_FUNCTION)}
            for call in kept["tool_calls"]
        ]
    elif kept.get("content") is None:
        kept["content"] = kept.get("refusal") or ""
    return kept


def _without(fields: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}
