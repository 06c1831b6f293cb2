"""The demo model on real vLLM, by the client that most callers have."""

import os
import signal
from pathlib import Path

import openai
import pytest

from tests.cluster.conftest import Platform

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(300)]

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def test_it_answers(platform: Platform) -> None:
    answer = platform.openai.chat.completions.with_raw_response.create(
        model="demo",
        messages=QUESTION,
        temperature=0,
        max_tokens=32,  # type: ignore[arg-type]
    )
    assert answer.headers["x-modelunit-revision"] == platform.endpoint("demo")["revision"]
    assert answer.headers["x-request-id"]
    chat = answer.parse()
    assert "Paris" in (chat.choices[0].message.content or "")
    assert chat.model == platform.endpoint("demo")["id"]
    assert chat.usage
    assert chat.usage.completion_tokens > 0


def test_it_streams_the_same_answer(platform: Platform) -> None:
    stream = platform.openai.chat.completions.create(
        model="demo", messages=QUESTION, temperature=0, max_tokens=32, stream=True,  # type: ignore[call-overload]
        stream_options={"include_usage": True},
    )  # fmt: skip
    events = list(stream)
    text = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert "Paris" in text
    assert events[-1].usage.completion_tokens > 0


def test_several_choices_with_logprobs(platform: Platform) -> None:
    chat = platform.openai.chat.completions.create(
        model="demo", messages=QUESTION, n=3, temperature=0.8, max_tokens=8, logprobs=True, top_logprobs=2,
        seed=1, stop=["\n\n"],  # type: ignore[arg-type]
    )  # fmt: skip
    assert len(chat.choices) == 3
    assert all(choice.logprobs and choice.logprobs.content for choice in chat.choices)


def test_a_prompt_longer_than_the_endpoint_takes_is_refused(platform: Platform) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        platform.openai.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "secret word " * 3000}], max_tokens=8
        )
    assert "2048" in refused.value.message
    assert "secret" not in refused.value.message


def test_killing_vllms_core_ends_its_streams_with_an_error_and_another_engine_answers(platform: Platform) -> None:
    request = {"model": "demo", "messages": QUESTION, "stream": True, "max_tokens": 1500, "ignore_eos": True}
    before = platform.engine_pids("demo")
    with platform.http.stream("POST", "/v1/chat/completions", json=request) as answer:
        pieces = answer.iter_text()
        text = next(pieces)
        core = next(pid for pid in before if "EngineCore" in Path(f"/proc/{pid}/cmdline").read_text())
        os.kill(core, signal.SIGKILL)
        text += "".join(pieces)
    assert '"error"' in text.rstrip().splitlines()[-1]
    assert "[DONE]" not in text
    chat = platform.openai.chat.completions.create(model="demo", messages=QUESTION, temperature=0, max_tokens=32)  # type: ignore[arg-type]
    assert "Paris" in (chat.choices[0].message.content or "")
    assert platform.wait_for("demo", "healthy")
    assert not set(platform.engine_pids("demo")) & set(before)


def test_no_log_holds_a_prompt(platform: Platform) -> None:
    marker = "zebra-quartz-lantern"
    platform.openai.chat.completions.create(model="demo", messages=[{"role": "user", "content": marker}], max_tokens=4)
    logs = [path for path in platform.machine.home.rglob("*") if path.suffix in (".log", ".db", ".json")]
    assert logs
    assert not [path for path in logs if marker in path.read_text(errors="ignore")]
