"""What this vLLM has and writes of parsers. Asked in a process of its own, since importing vLLM takes long."""

import json
import subprocess
import sys
from typing import Any

import pytest

from app.catalog.catalog import Catalog

PROGRAM = """
import json
import app.unit.vllm_engine
from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionResponseChoice, ChatCompletionResponseStreamChoice, ChatCompletionStreamResponse, ChatMessage,
)
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
tools, thoughts = json.loads(input())
for name in tools:
    ToolParserManager.get_tool_parser(name)
for name in thoughts:
    ReasoningParserManager.get_reasoning_parser(name)
said = {"role": "assistant", "content": "4", "reasoning": "2 + 2"}
whole = ChatCompletionResponseChoice(index=0, message=ChatMessage(**said)).model_dump()["message"]
events = [
    ChatCompletionStreamResponse(model="m", choices=[ChatCompletionResponseStreamChoice(index=0, delta=delta)])
    for delta in (DeltaMessage(reasoning="2 + 2"), DeltaMessage(content="4"))
]
deltas = [json.loads(event.model_dump_json(exclude_unset=True))["choices"][0]["delta"] for event in events]
print("\\n" + json.dumps([whole, *deltas]))
"""

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def told() -> list[dict[str, Any]]:
    """An answer's message and two events' deltas; fails where the catalogue names a parser that vLLM lacks."""
    entries = Catalog.load().entries
    tools = sorted({entry.tool_parser for entry in entries if entry.tool_parser})
    thoughts = sorted({entry.reasoning_parser for entry in entries if entry.reasoning_parser})
    assert {"hermes", "llama3_json"} <= set(tools)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([tools, thoughts]), text=True, check=True, timeout=280, stdout=subprocess.PIPE,
    )  # fmt: skip
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_parser_of_the_catalogue_is_vllms(told: list[dict[str, Any]]) -> None:
    assert told


def test_thoughts_have_the_name_that_each_client_reads(told: list[dict[str, Any]]) -> None:
    whole, thought, word = told
    assert whole["reasoning"] == whole["reasoning_content"] == "2 + 2"
    assert thought == {"reasoning": "2 + 2", "reasoning_content": "2 + 2"}
    assert word == {"content": "4"}
