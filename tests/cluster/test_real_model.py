"""The demo model on real vLLM, by the client that most callers have."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.cluster.conftest import CRASHING, DEMO, MODEL, SIMULATIONS, STEADY, Platform, until

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(300)]

MARKER = "zebra-quartz-lantern"
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
    sockets = [path for path in platform.machine.home.glob("run/engines/*/*") if path.is_socket()]
    assert sockets
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
    assert not any(path.exists() for path in sockets)


@pytest.fixture
def sleepy(platform: Platform) -> Iterator[None]:
    """The demo endpoint may sleep while the test lasts; no unit restarts for it."""
    scale = {"min_units": 0, "max_units": 1, "idle_to_zero_s": 10}
    platform.deploy(DEMO | {"scale": scale}, STEADY, CRASHING, simulations=SIMULATIONS)
    yield
    platform.deploy(DEMO, STEADY, CRASHING, simulations=SIMULATIONS)
    platform.wait_for("demo", "healthy")


def test_it_sleeps_while_nobody_calls_and_a_request_wakes_it(platform: Platform, sleepy: None) -> None:
    """The one who waits is an ordinary client, which does not notice the heartbeats."""
    endpoint_id = platform.endpoint("demo")["id"]
    platform.wait_until_asleep("demo")
    started = platform.units_started(endpoint_id)
    stream = platform.openai.chat.completions.create(
        model="demo", messages=QUESTION, temperature=0, max_tokens=32, stream=True,  # type: ignore[call-overload]
    )  # fmt: skip
    text = "".join(event.choices[0].delta.content or "" for event in stream if event.choices)
    assert "Paris" in text
    assert platform.units_started(endpoint_id) == started + 1


@pytest.fixture
def picky(platform: Platform, tmp_path: Path) -> Iterator[str]:
    """An endpoint whose model's own template refuses the marker, and repeats the prompt when it does."""
    folder = tmp_path / "picky"
    shutil.copytree(platform.machine.home / "objects" / "models" / MODEL / "BF16", folder)
    (folder / "manifest.json").unlink()
    template = folder / "chat_template.jinja"
    said = "messages[-1]['content']"
    refusing = f"{{% if '{MARKER}' in {said} %}}{{{{ raise_exception('not ' + {said}) }}}}{{% endif %}}"
    text = refusing + template.read_text()
    template.unlink()
    template.write_text(text)
    source = {"name": "picky", "base_model": "SmolLM2-135M-Instruct", "source": {"uri": f"file://{folder}"}}
    platform.http.post("/platform/v1/models", json=source).raise_for_status()
    wish = {"name": "picky", "model": "picky", "max_model_len": 256, "engine": {"kv_cache_bytes": 64 << 20}}
    made = platform.http.post("/platform/v1/endpoints", json=wish).raise_for_status().json()
    until(lambda: platform.endpoint("picky")["state"] == "healthy", "picky to be healthy", 150)
    yield made["id"]
    platform.http.delete(f"/platform/v1/endpoints/{made['id']}?confirm=DELETE").raise_for_status()


def test_no_log_holds_a_prompt(platform: Platform, picky: str) -> None:
    """Neither of a request that is answered, nor of those that are refused by us, by vLLM or by a template."""

    def chat(endpoint: str, text: str, **more: object) -> int:
        wish = {"model": endpoint, "messages": [{"role": "user", "content": text}], "max_tokens": 4, **more}
        return platform.http.post("/v1/chat/completions", json=wish).status_code

    assert chat("demo", f"{MARKER} answered") == 200
    assert chat("demo", f"{MARKER} streamed", stream=True) == 200
    assert chat("demo", f"{MARKER} too much " * 3000) == 400
    assert chat("demo", f"{MARKER} wrong", temperature=f"{MARKER} hot") == 400
    assert chat(picky, "anything else") == 200
    assert chat(picky, f"{MARKER} in the template") in (400, 500)
    logs = [path for path in platform.machine.home.rglob("*") if path.suffix in (".log", ".db", ".json", ".txt")]
    of_ray = [path for path in platform.machine.ray_logs().rglob("*") if path.is_file()]
    assert {".out", ".err", ".log"} <= {path.suffix for path in of_ray}
    assert any("router" in path.name for path in of_ray)
    assert any(path.name.startswith("engine-") for path in logs)
    assert [str(path) for path in (*logs, *of_ray) if MARKER in path.read_text(errors="ignore")] == []
