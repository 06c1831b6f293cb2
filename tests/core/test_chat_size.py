"""Bodies of tiny values are refused before they are parsed, and large texts are not."""

import json
from typing import Any

import pytest

from app.core.chat_rules import check_chat
from app.core.chat_size import MAX_BRACKETS, MAX_QUOTES
from app.core.errors import BadRequest
from app.core.vertex_rules import has_instances, instances

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TURN = {"role": "assistant", "tool_calls": [CALL] * 128}
TINY = [
    {"messages": [TURN] * 400},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 1024}] * 60},
    {"messages": [{f"k{number}": 0 for number in range(MAX_QUOTES)}]},
    {"messages": [], "unknown": [{}] * (MAX_BRACKETS + 1)},
]


@pytest.mark.parametrize("fields", TINY)
@pytest.mark.parametrize("check", [check_chat, lambda body: list(instances(body)), has_instances])
def test_too_many_values_are_refused(check: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        check(json.dumps({"model": "m"} | fields).encode())
    assert caught.value.body()["error"]["code"] == "too_many_values"


def test_megabytes_of_prose_and_of_source_are_taken() -> None:
    text = 'He said: "well", {a[0]: "b"}; ' * 100_000
    check_chat(json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode())
