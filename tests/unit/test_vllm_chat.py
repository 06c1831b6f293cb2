"""What vLLM's own OpenAI layer does with what routers let through, on the demo model."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from app.core.errors import PlatformError
from app.router.stream import TokenListener
from app.unit.engine import Simulation
from app.unit.engine_client import EngineClient
from tests.unit.engines import launch_of

START_S = 300
ANSWER_S = 300
MAX_MODEL_LEN = 512
QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "What is the capital of France?"}]

pytestmark = [pytest.mark.engine, pytest.mark.timeout(3 * START_S), pytest.mark.asyncio(loop_scope="module")]


class Vllm:
    """An engine with the parsers of a family that calls tools, and a router's end of its answers."""

    def __init__(self, engine: EngineClient, listener: TokenListener):
        self._engine = engine
        self._listener = listener

    async def ask(self, **fields: Any) -> bytes:
        """The whole answer. Raises PlatformError for what the engine refuses."""
        stream = self._listener.open()
        body = {"model": "ep-1", "messages": QUESTION, "max_tokens": 16, "temperature": 0} | fields
        wanted = {name: value for name, value in body.items() if value is not None}
        call = asyncio.create_task(
            self._engine.chat(stream.token, self._listener.address, "req-1", json.dumps(wanted).encode())
        )
        parts = []
        while part := await stream.read(ANSWER_S, "the answer"):
            parts.append(part)
        await call
        return b"".join(parts)

    async def chat(self, **fields: Any) -> Any:
        return json.loads(await self.ask(**fields))

    async def refusal(self, **fields: Any) -> dict[str, Any]:
        with pytest.raises(PlatformError) as caught:
            await self.ask(**fields)
        error: Any = caught.value.body()["error"]
        return {"status": caught.value.status} | error


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vllm(vllm_run_dir: Path, demo_model_folder: Path) -> AsyncIterator[Vllm]:
    launch = launch_of(vllm_run_dir, Simulation()).model_copy(
        update={
            "kind": "vllm", "model_dir": str(demo_model_folder), "kv_cache_bytes": 64 << 20, "threads": 2,
            "max_model_len": MAX_MODEL_LEN, "max_num_seqs": 16, "tool_parser": "hermes", "reasoning_parser": "qwen3",
        }
    )  # fmt: skip
    listener = TokenListener()
    await listener.start("127.0.0.1")
    engine = await EngineClient.start(launch, vllm_run_dir, START_S)
    yield Vllm(engine, listener)
    engine.close()
    listener.stop()


CITY: dict[str, Any] = {
    "type": "object", "properties": {"city": {"enum": ["Paris"]}}, "required": ["city"], "additionalProperties": False,
}  # fmt: skip
LOOK_UP = {"type": "function", "function": {"name": "f", "strict": True, "parameters": CITY}}


async def test_a_family_that_thinks_loses_nothing_of_a_model_that_does_not(vllm: Vllm) -> None:
    """Its reasoning parser would take the whole answer for thoughts."""
    message = (await vllm.chat())["choices"][0]["message"]
    assert "Paris" in message["content"]
    assert not message["reasoning"]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_prompt_and_answer_have_to_fit_together(vllm: Vllm, field: str) -> None:
    prompt = (await vllm.chat(max_tokens=1))["usage"]["prompt_tokens"]
    for stream in (False, True):
        lengths = {"max_tokens": None, field: MAX_MODEL_LEN - prompt + 1, "stream": stream}
        refusal = await vllm.refusal(**lengths)
        assert (refusal["status"], refusal["param"], refusal["code"]) == (400, field, "context_length_exceeded")
        for number in (prompt, MAX_MODEL_LEN - prompt + 1, MAX_MODEL_LEN + 1, MAX_MODEL_LEN):
            assert str(number) in refusal["message"]
    whole = await vllm.refusal(**{"max_tokens": None, field: MAX_MODEL_LEN + 1})
    assert (whole["status"], whole["param"]) == (400, field)


@pytest.mark.parametrize("words", [MAX_MODEL_LEN, 100 * MAX_MODEL_LEN])
async def test_a_prompt_that_is_too_long_is_refused_with_numbers_and_not_repeated(vllm: Vllm, words: int) -> None:
    refusal = await vllm.refusal(messages=[{"role": "user", "content": "zebra " * words}], max_tokens=None)
    assert (refusal["status"], refusal["param"], refusal["code"]) == (400, "messages", "context_length_exceeded")
    assert str(MAX_MODEL_LEN) in refusal["message"]
    assert "zebra" not in refusal["message"]


async def test_an_answer_follows_a_schema(vllm: Vllm) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
    chat = await vllm.chat(response_format=wanted, max_tokens=40)
    assert json.loads(chat["choices"][0]["message"]["content"]) == {"city": "Paris"}
    begun = await vllm.chat(response_format={"type": "json_object"}, max_tokens=4)
    assert begun["choices"][0]["message"]["content"].startswith("{")


async def test_a_schema_that_the_engine_cannot_follow_is_refused(vllm: Vllm) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "odd", "schema": {"type": "nonsense"}}}
    assert (await vllm.refusal(response_format=wanted))["status"] == 400


async def test_a_function_is_called_and_its_result_is_heard(vllm: Vllm) -> None:
    named = {"type": "function", "function": {"name": "f"}}
    choice = (await vllm.chat(tools=[LOOK_UP], tool_choice=named, max_tokens=64))["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "f"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "It is Paris."}
    again = await vllm.chat(messages=[*QUESTION, choice["message"], result], tools=[LOOK_UP], tool_choice="none")
    assert again["choices"][0]["message"]["content"]


async def test_beams_are_searched(vllm: Vllm) -> None:
    beams: Any = {"use_beam_search": True, "n": 2, "length_penalty": 2.0, "max_tokens": 2}
    texts = [choice["message"]["content"] for choice in (await vllm.chat(**beams))["choices"]]
    assert len(set(texts)) == 2
    events = (await vllm.ask(**beams, stream=True)).decode()
    assert events.endswith("data: [DONE]\n\n")


async def test_what_has_no_effect_does_no_harm(vllm: Vllm) -> None:
    idle = {
        "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "modalities": ["text"], "user": "u",
        "prompt_cache_key": "k", "safety_identifier": "s", "verbosity": "medium", "reasoning_effort": "low",
    }  # fmt: skip
    developer = [{"role": "developer", "content": "Answer in one sentence."}]
    chat = await vllm.chat(messages=[*developer, *QUESTION], **idle)
    assert "Paris" in chat["choices"][0]["message"]["content"]


async def test_broken_arguments_of_an_earlier_call_do_not_end_a_conversation(vllm: Vllm) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{broken"}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c", "content": "Paris"}
    assert (await vllm.chat(messages=[*QUESTION, said, result], max_tokens=1))["choices"]
