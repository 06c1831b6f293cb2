"""The demo model on real vLLM, by the client that most callers have."""

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import pytest
from volcenginesdkarkruntime import Ark

from app.bench import arms
from tests.cluster.conftest import CRASHING, DEMO, MODEL, SIMULATIONS, STEADY, Platform, until

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(600)]

MARKER = "zebra-quartz-lantern"
REFUSED = "quince"
VERTEX = "/v1beta1/projects/any/locations/any"
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


THINGS = (
    "a river", "the moon", "bread", "a bicycle", "the sea", "a clock", "a violin", "snow", "a bridge", "the heart",
    "a map", "coffee", "a library", "the wind", "a candle",
)  # fmt: skip
PROMPTS = [f"{question} {thing}?" for thing in THINGS for question in ("What is", "Who needs")]
SAMPLING: dict[str, Any] = {"temperature": 0, "max_tokens": 4, "logprobs": True, "top_logprobs": 5}
TOLERANCE = 0.15
"""Of log-probabilities: bf16, and batches that nobody makes the same twice."""
Places = list[dict[str, float]]
"""Token by token, the most probable first: what was chosen there, and the log-probability of each."""


def places(answer: Any) -> Places:
    """Of a chat completion as any server tells it."""
    content = answer["choices"][0]["logprobs"]["content"]
    return [{top["token"]: top["logprob"] for top in (one, *one["top_logprobs"])} for one in content]


def differs(ours: Places, theirs: Places) -> float:
    """By how much at most, as far as both chose the same tokens: from there on they have said something else."""
    widest = 0.0
    for mine, other in zip(ours, theirs, strict=False):
        known = mine.keys() & other.keys()
        assert known
        widest = max(widest, *(abs(mine[token] - other[token]) for token in known))
        if next(iter(mine)) != next(iter(other)):
            break
    return widest


@pytest.fixture(scope="module")
def plain_vllm(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What vLLM's own server answers to the prompts, from the same weights."""
    weights = platform.machine.home / "objects" / "models" / MODEL / "BF16"
    with arms.plain(weights, 1, tmp_path_factory.mktemp("plain") / "log") as started:
        url = f"{started.server.base_url}/v1/chat/completions"
        bodies = [{"model": started.server.model, "messages": said(prompt), **SAMPLING} for prompt in PROMPTS]
        return at_once(lambda body: httpx.post(url, json=body, timeout=120, trust_env=False).json(), bodies)


def said(prompt: str) -> Any:
    return [{"role": "user", "content": prompt}]


def at_once(call: Callable[[Any], Any], given: Sequence[Any]) -> list[Any]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(call, given))


def by_openai(platform: Platform, endpoint: str) -> list[Any]:
    create = platform.openai.chat.completions.create
    return at_once(lambda prompt: create(model=endpoint, messages=said(prompt), **SAMPLING).model_dump(), PROMPTS)


def by_ark(platform: Platform, endpoint: str) -> list[Any]:
    client = Ark(base_url=f"{platform.base_url}/api/v3", api_key=platform.key, max_retries=0, timeout=120)
    create = client.chat.completions.create
    return at_once(lambda prompt: create(model=endpoint, messages=said(prompt), **SAMPLING).model_dump(), PROMPTS)


def by_vertex(platform: Platform, endpoint: str) -> list[Any]:
    url = f"{VERTEX}/endpoints/{endpoint}/chat/completions"
    return at_once(lambda prompt: platform.http.post(url, json={"messages": said(prompt), **SAMPLING}).json(), PROMPTS)


def by_vertex_predict(platform: Platform, endpoint: str) -> list[Any]:
    """All of them in one call."""
    instances = [{"@requestFormat": "chatCompletions", "messages": said(prompt)} for prompt in PROMPTS]
    body = {"instances": instances, "parameters": SAMPLING}
    answer = platform.http.post(f"{VERTEX}/endpoints/{endpoint}:predict", json=body).raise_for_status().json()
    valid(platform, "PredictResponse", answer)
    return list(answer["predictions"])


@pytest.mark.parametrize("surface", [by_openai, by_ark, by_vertex, by_vertex_predict])
def test_every_surface_gives_the_probabilities_of_plain_vllm(
    platform: Platform, plain_vllm: list[Any], surface: Callable[[Platform, str], list[Any]]
) -> None:
    answers = surface(platform, platform.endpoint("demo")["id"])
    assert len(answers) == len(PROMPTS) == 30
    widest = [differs(places(ours), places(theirs)) for ours, theirs in zip(answers, plain_vllm, strict=True)]
    assert max(widest) < TOLERANCE, widest
    used = [[one["usage"]["prompt_tokens"] for one in made] for made in (answers, plain_vllm)]
    assert used[0] == used[1]


def valid(platform: Platform, form: str, answer: Any) -> None:
    """It is as /openapi.json says."""
    components = platform.http.get("/openapi.json").json()["components"]
    jsonschema.validate(answer, {"$ref": f"#/components/schemas/{form}", "components": components})


def test_answers_are_as_described(platform: Platform) -> None:
    http, endpoint = platform.http, platform.endpoint("demo")["id"]
    body = {"model": "demo", "messages": QUESTION, "max_tokens": 4}
    for more in ({}, {"n": 2, "temperature": 1, "logprobs": True, "top_logprobs": 2}):
        valid(platform, "ChatAnswer", http.post("/v1/chat/completions", json=body | more).json())
        stream = more | {"stream": True, "stream_options": {"include_usage": True}}
        events = http.post("/v1/chat/completions", json=body | stream).text.split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        for event in events[:-2]:
            valid(platform, "ChatEvent", json.loads(event.removeprefix("data: ")))
    valid(platform, "Models", http.get("/v1/models").json())
    valid(platform, "VertexEndpoint", http.get(f"{VERTEX}/endpoints/{endpoint}").json())
    valid(platform, "Error", http.post("/v1/chat/completions", json=body | {"temperature": 3}).json())
    prompt = {"prompt": QUESTION[0]["content"], "temperature": 0, "max_tokens": 32}
    predicted = http.post(f"{VERTEX}/endpoints/{endpoint}:predict", json={"instances": [prompt]}).json()
    valid(platform, "PredictResponse", predicted)
    assert "Paris" in predicted["predictions"][0]
    streamed = http.post(f"{VERTEX}/endpoints/{endpoint}:streamRawPredict", json={"instances": [prompt]})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.text.endswith("data: [DONE]\n\n")


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
    """An endpoint whose model's own template refuses a word, and repeats the prompt when it does."""
    folder = tmp_path / "picky"
    shutil.copytree(platform.machine.home / "objects" / "models" / MODEL / "BF16", folder)
    (folder / "manifest.json").unlink()
    template = folder / "chat_template.jinja"
    said = "messages[-1]['content']"
    refusing = f"{{% if '{REFUSED}' in {said} %}}{{{{ raise_exception('not ' + {said}) }}}}{{% endif %}}"
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


FUNCTION = {"name": MARKER, "description": MARKER, "parameters": {"type": "object", "properties": {MARKER: {}}}}
CALLED = {"id": MARKER, "type": "function", "function": {"name": MARKER, "arguments": f'{{"{MARKER}": "{MARKER}"}}'}}
WITH_MARKERS: list[dict[str, Any]] = [
    {"stream": True}, {"user": MARKER}, {"stop": [MARKER]}, {"metadata": {MARKER: MARKER}}, {"seed": MARKER},
    {"temperature": f"{MARKER} hot"}, {"stop": [MARKER] * 9}, {"stop": MARKER * 99}, {"logit_bias": {MARKER: 1}},
    {MARKER: MARKER}, {"tools": [{"type": "function", "function": FUNCTION}]}, {"tools": [{"type": MARKER}]},
    {"tool_choice": {"type": "function", "function": {"name": MARKER}}}, {"n": 99}, {"stream_options": MARKER},
    {"response_format": {"type": "json_schema", "json_schema": {"name": MARKER, "schema": {MARKER: MARKER}}}},
    {"messages": [{"role": MARKER, "content": MARKER}]}, {"messages": [{"role": "user", "content": {MARKER: MARKER}}]},
    {"messages": MARKER}, {"messages": [{"role": "user", "content": [{"type": MARKER, MARKER: MARKER}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"http://{MARKER}/x"}}]}]},
    {"messages": [{"role": "assistant", "tool_calls": [CALLED]}, {"role": "tool", "content": MARKER}]},
    {"messages": [{"role": "user", "content": f"{MARKER} too much " * 3000}]}, {"chat_template": f"{{{{ {MARKER} }}}}"},
    {"chat_template_kwargs": {MARKER: MARKER}}, {"cache_salt": MARKER}, {"request_id": MARKER},
    {"vllm_xargs": {MARKER: MARKER}}, {"structured_outputs": {"regex": f"({MARKER}"}}, {"guided_regex": f"({MARKER}"},
]  # fmt: skip


@pytest.mark.timeout(600)
def test_nothing_of_what_callers_say_or_hear_stays_anywhere(platform: Platform, picky: str) -> None:
    """Neither of requests that are answered, nor of those that are refused by us, by vLLM or by a template."""
    url = "/v1/chat/completions"

    def chat(endpoint: str, text: str, **more: object) -> httpx.Response:
        wish = {"model": endpoint, "messages": [{"role": "user", "content": text}], "max_tokens": 4, **more}
        return platform.http.post(url, json=wish)

    for more in WITH_MARKERS:
        answer = chat("demo", f"{MARKER} with more", **more)
        assert answer.status_code < 500, answer.text
        named = f'"{MARKER}": ' in json.dumps(more)  # an error names the field that is wrong, and no value
        assert answer.status_code == 200 or named or MARKER not in answer.text, answer.text
    assert chat(picky, "anything else").status_code == 200
    assert chat(picky, f"{MARKER} {REFUSED} in the template").status_code in (400, 500)
    assert platform.http.post(url, content=f'{{"messages": "{MARKER}" "{MARKER}"}}').status_code == 400
    assert chat(MARKER, MARKER).status_code == 404
    headers = {name: MARKER for name in ("x-request-id", "x-client-request-id", "user-agent", "x-modelunit-wake")}
    platform.http.post(f"{url}?{MARKER}={MARKER}", json={"model": "demo", "messages": QUESTION}, headers=headers)
    platform.http.post(f"/v1/{MARKER}")
    request = {"model": "demo", "messages": QUESTION, "max_tokens": 1000, "stream": True, "user": MARKER}
    with platform.http.stream("POST", url, json=request) as left:
        next(left.iter_bytes())
    asked = chat("demo", f"Write about {MARKER}, please.", max_tokens=48, temperature=0)
    said = asked.json()["choices"][0]["message"]["content"]
    marks = [MARKER.encode(), json.dumps(said)[1:-1][:30].encode(), said.strip()[-30:].encode()]

    kept = [path for path in platform.machine.home.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    of_ray = [path for path in platform.machine.ray_logs().rglob("*") if path.is_file()]
    assert {".out", ".err", ".log"} <= {path.suffix for path in of_ray}
    assert any("router" in path.name for path in of_ray)
    assert any(path.name.startswith("engine-") for path in kept)
    assert any(path.name == "registry.db" for path in kept)
    for path in (*kept, *of_ray):
        with contextlib.suppress(FileNotFoundError):
            content = path.read_bytes()
            assert not [mark for mark in marks if mark in content], path
    for page in ("/metrics", "/platform/v1/audit", "/platform/v1/events"):
        shown = platform.http.get(page, params={"order": "desc", "page_size": 1000} if page != "/metrics" else {})
        assert shown.status_code == 200
        assert not [mark for mark in marks if mark in shown.content], page
