"""A table of bad requests on every surface: what each gets, at once, and no unit hears of any."""

import json
import time
from typing import Any

import openai
import pytest

from tests.router.tables import KEY, UNKNOWN_KEY, MakeRouter
from tests.router.units import forever

SECRET = "my-private-words"
BOUND_S = 0.1
"""Of all rows of a surface together, for each: one of them alone may meet whatever else a machine does."""
MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": SECRET}]
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
BEAMS = {"use_beam_search": True, "n": 2, "temperature": 0}
SURFACES = {
    "openai": "/v1/chat/completions",
    "ark": "/api/v3/chat/completions",
    "vertex": "/v1beta1/projects/p/locations/l/endpoints/ep-1/chat/completions",
}

Row = tuple[Any, int, str, str | None]
"""Body (fields beside a good model and messages, or bytes), status, code, param."""


def invalid(param: str, *values: Any, name: str | None = None, code: str = "invalid_value") -> list[Row]:
    """Values of a field, `name` or the one that the error names, each of them refused alike."""
    return [({name or param: value}, 400, code, param) for value in values]


def saying(param: str, content: Any, code: str = "invalid_value", role: str = "user", **more: Any) -> Row:
    return {"messages": [{"role": role, "content": content, **more}]}, 400, code, f"messages[0].{param}"


def part(kind: str) -> Row:
    content = [{"type": "text", "text": SECRET}, {"type": kind, kind: {"url": f"https://{SECRET}"}}]
    return saying("content[1].type", content, "unsupported_content")


def calling(param: str, **call: Any) -> Row:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}} | call
    return saying(f"tool_calls[0]{param}", None, role="assistant", tool_calls=[call])


def schema(param: str, **keywords: Any) -> Row:
    if param.startswith("tools"):
        wanted: Any = {"tools": [{"type": "function", "function": {"name": "f", "parameters": keywords}}]}
    else:
        form = {"type": "json_schema", "json_schema": {"name": "f", "schema": keywords}}
        wanted = {"response_format": form}
    return wanted, 400, "invalid_value", param


ROWS: list[Row] = [
    # Not a request at all.
    *((body, 400, "invalid_json", None) for body in (b"", b"{", b"[]", b"null", b'"text"', b"\xff", b"[" * 10_000)),
    (b'{"model": "ep-1", "messages": [{"role": "user", "content": "\\ud800"}]}', 400, "invalid_json", None),
    (b'{"model": "ep-1"}', 400, "invalid_value", "messages"),
    # Messages.
    *invalid("messages", None, [], "hello", {}, MESSAGES * 4097),
    *invalid("messages[0]", ["hello"], [None], [[]], name="messages"),
    saying("role", "hi", role="function"),
    saying("role", "hi", role="User"),
    ({"messages": [{"content": "hi"}]}, 400, "invalid_value", "messages[0].role"),
    ({"messages": [{"role": "user"}]}, 400, "invalid_value", "messages[0].content"),
    ({"messages": [*MESSAGES, {"role": "assistant"}]}, 400, "invalid_value", "messages[1].content"),
    *(saying("content", content) for content in (None, 5, True, [], {})),
    saying("content", None, role="system"),
    saying("content", None, role="assistant", tool_calls=[]),
    saying("content[0]", ["hi"]),
    saying("content[0].text", [{"type": "text"}]),
    saying("content[0].text", [{"type": "text", "text": 5}]),
    saying("content[0].type", [{"text": "hi"}]),
    saying("content[0].type", [{"type": "poem", "text": "hi"}]),
    saying("content[0].cache_control", [{"type": "text", "text": "hi", "cache_control": "ephemeral"}]),
    *(part(kind) for kind in ("image_url", "input_audio", "file", "video_url", "image", "prompt_embeds")),
    saying("name", "hi", name="n" * 65),
    saying("tools", "hi", "unknown_field", tools=[]),
    saying("tool_call_id", "hi", "unknown_field", tool_call_id="c"),
    saying("tool_call_id", "hi", role="tool"),
    saying("tool_call_id", "hi", role="tool", tool_call_id=7),
    saying("tool_calls", None, role="assistant", tool_calls="f()"),
    saying("audio", "hi", role="assistant", audio={"id": "a"}),
    saying("function_call", "hi", role="assistant", function_call={"name": "f"}),
    calling(".id", id=None),
    calling(".type", type="custom"),
    calling(".function", function="f()"),
    calling(".function.arguments", function={"name": "f", "arguments": {}}),
    # How the answer is sampled: S3, table 9-1.
    *invalid("temperature", -0.1, 2.1, "1", True, [], float("nan")),
    *invalid("top_p", 0, -0.5, 1.1, "1"),
    *invalid("top_k", -2, 0, 1.5, "5"),
    *invalid("min_p", -0.1, 1.1),
    *invalid("presence_penalty", -2.1, 2.1, "0"),
    *invalid("frequency_penalty", -2.1, 2.1),
    *invalid("repetition_penalty", 0, 2.5),
    *invalid("max_tokens", 0, -1, 1.5, "16", 1 << 40),
    *invalid("max_completion_tokens", 0, "16"),
    *invalid("n", 0, 11, -1, 1.0, "2"),
    *invalid("stop", "", 5, ["s"] * 5, "s" * 257, {}),
    *invalid("stop[1]", ["s", ""], ["s", None], name="stop"),
    *invalid("seed", 1.5, 1 << 63, "1"),
    *invalid("ignore_eos", 1, "true"),
    *invalid("use_beam_search", 1, "true"),
    *invalid("best_of", 0, 21, 1.5),
    *invalid("length_penalty", 2.0, 0, 11, "1"),
    *invalid("logprobs", 1, "true"),
    *invalid("top_logprobs", 5, -1, 21),
    *invalid("logit_bias", [], {"word": 1}, {"-1": 1}),
    *invalid("logit_bias.5", {"5": 101}, {"5": "1"}, name="logit_bias"),
    ({"n": 2, "temperature": 0}, 400, "invalid_value", "n"),
    ({"n": 2, "top_k": 1}, 400, "invalid_value", "n"),
    (BEAMS | {"n": 1}, 400, "invalid_value", "n"),
    (BEAMS | {"top_p": 0.9}, 400, "invalid_value", "top_p"),
    (BEAMS | {"top_k": 10}, 400, "invalid_value", "top_k"),
    (BEAMS | {"temperature": 0.5}, 400, "invalid_value", "use_beam_search"),
    ({"use_beam_search": True, "n": 2}, 400, "invalid_value", "use_beam_search"),
    (BEAMS | {"stop": ["a"]}, 400, "invalid_value", "stop"),
    (BEAMS | {"length_penalty": 2.0}, 400, "invalid_value", "length_penalty"),
    (BEAMS | {"length_penalty": 2.0, "best_of": 1}, 400, "invalid_value", "best_of"),
    ({"n": 3, "best_of": 2}, 400, "invalid_value", "best_of"),
    ({"max_tokens": 5, "max_completion_tokens": 5}, 400, "invalid_value", "max_tokens"),
    # Streams.
    *invalid("stream", 1, "true"),
    ({"stream_options": {"include_usage": True}}, 400, "invalid_value", "stream_options"),
    ({"stream": True, "stream_options": True}, 400, "invalid_value", "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, 400, "invalid_value", "stream_options.include_usage"),
    ({"stream": True, "stream_options": {"every": 1}}, 400, "unknown_field", "stream_options.every"),
    # Tools and formats.
    ({"tools": [TOOL]}, 400, "feature_disabled", "tools"),
    ({"tools": [TOOL], "tool_choice": "required"}, 400, "feature_disabled", "tools"),
    *invalid("tools", [], {}, [TOOL] * 129),
    *invalid("tools[0].type", [{"type": "custom"}], [{"type": "web_search"}], name="tools"),
    *invalid("tools[0].function.name", [{"type": "function", "function": {"name": "a b"}}], name="tools"),
    schema("tools[0].function.parameters", **{"$ref": "https://example.com/schema"}),
    schema("response_format.json_schema.schema", maxLength=1_000_000),
    schema("tools[0].function.parameters", enum=["v"] * 5000),
    schema("tools[0].function.parameters", default=json.loads('{"a":' * 50 + "1" + "}" * 50)),
    *invalid("tool_choice", "auto", "required", "any", {"type": "function", "function": {"name": "look_up"}}),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}}, 400,
     "invalid_value", "tool_choice.function.name"),
    *invalid("parallel_tool_calls", "no"),
    ({"response_format": {"type": "json_object"}}, 400, "feature_disabled", "response_format.type"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}}, 400,
     "feature_disabled", "response_format.type"),
    *invalid("response_format", "json_object", []),
    *invalid("response_format.type", {"type": "structural_tag"}, {}, name="response_format"),
    *invalid("response_format.json_schema", {"type": "json_schema"}, name="response_format"),
    schema("response_format.json_schema.schema", **{"$ref": "file:///etc/passwd"}),
    # What others serve.
    *invalid("reasoning_effort", "extreme", 1),
    *invalid("thinking.type", {"type": "never"}, {}, name="thinking"),
    *invalid("modalities[0]", ["audio"], name="modalities"),
    *invalid("verbosity", "low"),
    *invalid("service_tier", "flex", "priority"),
    *invalid("store", True),
    *invalid("metadata.a", {"a": 1}, name="metadata"),
    *invalid("user", 5, "u" * 513),
    *(row for name in (
        "audio", "chat_template", "chat_template_kwargs", "documents", "function_call", "functions", "prediction",
        "prompt_embeds", "structured_outputs", "web_search_options",
    ) for row in invalid(name, {"url": f"https://{SECRET}"}, code="unsupported_parameter")),
    # What only an engine's owner may say, and typing errors.
    *(row for name in (
        "add_generation_prompt", "allowed_token_ids", "bad_words", "cache_salt", "continue_final_message", "echo",
        "guided_json", "guided_regex", "kv_transfer_params", "logits_processors", "min_tokens", "priority",
        "prompt_logprobs", "request_id", "return_token_ids", "truncate_prompt_tokens", "vllm_xargs",
        "Temperature", "max_token", "prompt", "input",
    ) for row in invalid(name, 1, code="unknown_field")),
]  # fmt: skip


def sent(row: Row, model: str | None) -> bytes:
    if isinstance(row[0], bytes):
        return row[0]
    named = {"model": model} if model else {}
    return json.dumps(named | {"messages": MESSAGES} | row[0]).encode()


def test_the_table_is_long_enough_and_says_nothing_twice() -> None:
    assert len({sent(row, "ep-1") for row in ROWS}) == len(ROWS) >= 120


@pytest.mark.parametrize("surface", SURFACES)
async def test_bad_requests_are_refused_at_once_and_reach_no_unit(make_router: MakeRouter, surface: str) -> None:
    router = await make_router(forever)
    wrong, began = [], time.perf_counter()
    async with router.http() as http:
        for row in ROWS:
            body, (_, *expected) = sent(row, None if surface == "vertex" else "ep-1"), row
            answer = await http.post(SURFACES[surface], content=body)
            error = answer.json()["error"]
            if [answer.status_code, error["code"], error["param"]] != expected:
                wrong.append((str(row[0])[:200], expected, answer.status_code, error))
            assert error["type"] == "invalid_request_error"
            assert SECRET not in answer.text
    assert wrong == []
    assert (time.perf_counter() - began) / len(ROWS) < BOUND_S
    assert (router.units.responses, router.units.wakes) == ([], [])


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "model"), ({"model": 5}, "model"), ({"model": ""}, "model"), ({"model": "m" * 129}, "model")],
)
async def test_where_the_path_names_no_endpoint_the_body_does(
    make_router: MakeRouter, body: dict[str, Any], param: str
) -> None:
    http = (await make_router(forever)).http()
    for surface in ("openai", "ark"):
        answer = await http.post(SURFACES[surface], json={"messages": MESSAGES} | body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


UNSUPPORTED = [
    "/v1/responses", "/v1/responses/resp_1", "/v1/responses/resp_1/input_items", "/v1/completions", "/v1/embeddings",
    "/v1/assistants", "/v1/threads/t/runs", "/v1/files", "/v1/audio/speech", "/v1/images/generations", "/v1/batches",
    "/v1/moderations", "/v1/fine_tuning/jobs", "/v1/messages", "/api/v3/responses", "/api/v3/responses/resp_1",
    "/api/v3/context/create", "/api/v3/context/chat/completions", "/api/v3/embeddings", "/api/v3/bots/chat/completions",
]  # fmt: skip


@pytest.mark.parametrize("path", UNSUPPORTED)
async def test_other_apis_are_refused_and_the_chat_api_is_named(make_router: MakeRouter, path: str) -> None:
    router = await make_router(forever)
    chat = SURFACES["ark" if path.startswith("/api/v3") else "openai"]
    for method in ("POST", "GET", "DELETE", "PUT", "PATCH", "OPTIONS"):
        answer = await router.http().request(method, path, content=b'{"model": "ep-1", "input": "hello"}')
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["type"]) == (400, "unsupported_api", "invalid_request_error")
        assert f"POST {chat}" in error["message"]
        for key in (None, UNKNOWN_KEY):
            assert (await router.http(key).request(method, path)).status_code == 401
    assert router.units.responses == []


async def test_the_openai_client_learns_which_api_to_use(make_router: MakeRouter) -> None:
    client = (await make_router(forever)).openai(KEY)
    with pytest.raises(openai.BadRequestError, match="/v1/chat/completions") as refused:
        await client.responses.create(model="ep-1", input="hello")
    assert refused.value.code == "unsupported_api"
    with pytest.raises(openai.BadRequestError):
        await client.embeddings.create(model="ep-1", input="hello")
