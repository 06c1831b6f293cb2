"""The catalogue names parsers that this vLLM has. Asked in a process of its own, since importing vLLM takes long."""

import json
import subprocess
import sys

import pytest

from app.catalog.catalog import Catalog

PROGRAM = """
import json
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
tools, thoughts = json.loads(input())
for name in tools:
    ToolParserManager.get_tool_parser(name)
for name in thoughts:
    ReasoningParserManager.get_reasoning_parser(name)
"""

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def test_every_parser_of_the_catalogue_is_vllms() -> None:
    entries = Catalog.load().entries
    tools = sorted({entry.tool_parser for entry in entries if entry.tool_parser})
    thoughts = sorted({entry.reasoning_parser for entry in entries if entry.reasoning_parser})
    assert {"hermes", "llama3_json"} <= set(tools)
    subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps([tools, thoughts]), text=True, check=True, timeout=280
    )
