"""Every field of a chat request: what is accepted, what is refused, and what the refusal may say."""

import json
from typing import Any

import pytest

from app.core.chat_fields import MAX_BIASES
from app.core.chat_json import MAX_LEVELS, MAX_MARK_LEVELS, MAX_MARK_VALUES, MAX_VALUES
from app.core.chat_messages import MAX_PARTS, OTHER_PARTS
from app.core.chat_rules import ChatRequest, check_chat
from app.core.chat_settling import settle
from app.core.chat_terms import PROFILES, ChatTerms
from app.core.chat_tools import MAX_SCHEMA_COUNT, MAX_SCHEMA_DEPTH, MAX_SCHEMA_VALUES, MAX_TOOLS
from app.core.errors import BadRequest, InvalidField

SECRET = "my-private-words"
LONG = {"type": "object", "properties": {"text": {"type": "string", "maxLength": 1_000_000}}}
MESSAGES = [{"role": "user", "content": "hello"}]
TEXT_PARTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "ep-1", "messages": MESSAGES} | fields).encode()


def refusal(**fields: Any) -> InvalidField:
    with pytest.raises(InvalidField) as caught:
        check_chat(body(**fields))
    return caught.value


def message(**fields: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "hello"} | fields]


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "look_up"} | function}


def called(**fields: Any) -> list[dict[str, Any]]:
    """A conversation with a function called in it."""
    call = {"id": "call-1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}} | fields
    return [*MESSAGES, {"role": "assistant", "content": None, "tool_calls": [call]}]


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"not": schema}
    return schema


def json_schema(schema: Any = {"type": "object"}, **more: Any) -> dict[str, Any]:  # noqa: B006
    return {"type": "json_schema", "json_schema": {"name": "city", "schema": schema} | more}


REFUSED_FIELDS = {name for name, field in ChatRequest.model_fields.items() if field.annotation is type(None)}
UNTYPED: dict[str, Any] = {
    "role": "assistant", "content": "Hm.", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}],
}  # fmt: skip
MARKS = {"cache_control": {"type": "ephemeral", "ttl": "1h"}, "prompt_cache_breakpoint": {"mode": "explicit"}}
ECHOED = {"role": "assistant", "content": "Paris", "refusal": None, "annotations": None, "audio": None,
          "function_call": None, "reasoning": "It is Paris."}  # fmt: skip
"""A message of an answer, as clients send it back in the next turn."""

ACCEPTED: dict[str, list[Any]] = {
    "model": ["m", "m" * 128],
    "messages": [
        *(message(role=role) for role in ("system", "developer", "user", "assistant")),
        message(role="tool", tool_call_id="call-1"),
        message(role="tool", tool_call_id="call-1", content=TEXT_PARTS),
        called(),
        called(index=0),
        [ECHOED, *MESSAGES],
        [ECHOED | {"annotations": [], "tool_calls": [], "reasoning_content": "Hm."}, *MESSAGES],
        [ECHOED | {"encrypted_content": None, "parsed": {"city": ["Paris", 1.5, None]}}, *MESSAGES],
        [{"role": "assistant", "content": None, "reasoning_content": "It is"}, *MESSAGES],
        called(function={"name": "f", "arguments": "{}", "parsed_arguments": {"a": 1}}),
        message(content=[TEXT_PARTS[0] | MARKS]),
        message(content=TEXT_PARTS),
        message(content=TEXT_PARTS[:1] * MAX_PARTS),
        message(content=""),
        message(name="n" * 64),
        MESSAGES * 4096,
    ],
    "stream": [True, False, None],
    "stream_options": [None],
    "max_tokens": [1, 1 << 24, None],
    "max_completion_tokens": [1, 1 << 24, None],
    "temperature": [0, 0.0, 1, 2, 2.0, None],
    "top_p": [1e-9, 0.5, 1, 1.0, None],
    "top_k": [-1, 1, 1 << 24, None],
    "n": [1, 10, None],
    "stop": ["s", "s" * 256, [], ["s"] * 4, ["s" * 256], None],
    "presence_penalty": [-2, 0, 2, None],
    "frequency_penalty": [-2.0, 0.5, 2.0, None],
    "logprobs": [True, False, None],
    "top_logprobs": [0, None],
    "logit_bias": [{}, {"1": -100, "2": 100.0}, {str(token): 1 for token in range(MAX_BIASES)}, None],
    "seed": [-(1 << 63), 0, (1 << 63) - 1, None],
    "ignore_eos": [True, False, None],
    "user": ["", "u" * 512, None],
    "min_p": [0, 1.0, None],
    "repetition_penalty": [0.1, 1, 2.0, None],
    "use_beam_search": [True, False, None],
    "best_of": [1, 20, None],
    "length_penalty": [-10, 1, 10.0, None],
    "tools": [
        [tool()] * MAX_TOOLS,
        [tool(description="d", parameters={"type": "object", "$ref": "#/$defs/a"}, strict=True)],
        [tool(parameters=nested(MAX_SCHEMA_DEPTH))],
        [tool(parameters={"enum": ["v"] * (MAX_SCHEMA_VALUES - 2)})],
        [tool(parameters={"maxItems": MAX_SCHEMA_COUNT, "properties": {"$ref": {"type": "string"}}}, strict=True)],
        [tool(parameters={"maxItems": MAX_SCHEMA_COUNT + 1})],
        None,
    ],
    "tool_choice": ["none", None],
    "parallel_tool_calls": [True, False, None],
    "response_format": [{"type": "text"}, {"type": "json_object"}, json_schema(strict=True), None],
    "reasoning_effort": ["none", "minimal", "low", "medium", "high", "xhigh", "max", None],
    "thinking": [{"type": "enabled"}, {"type": "disabled"}, {"type": "auto"}, None],
    "modalities": [["text"], None],
    "verbosity": ["medium", None],
    "service_tier": ["auto", "default", None],
    "store": [False, None],
    "safety_identifier": ["s" * 512, None],
    "prompt_cache_key": ["s" * 512, None],
    "prompt_cache_retention": ["24h", None],
    "prompt_cache_options": [{"mode": "explicit", "ttl": "30m"}, {}, None],
    "metadata": [{}, {"a": "b"}, {str(key): "v" for key in range(16)}, None],
}

# Field: (wrong value, what the error names, what it says came).
REFUSED: dict[str, list[tuple[Any, str, str]]] = {
    "model": [
        (1, "model", "1"),
        (None, "model", "null"),
        ("", "model", "a string of length 0"),
        (SECRET * 20, "model", "a string of length 320"),
    ],
    "messages": [
        (SECRET, "messages", "a string of length 16"),
        (None, "messages", "null"),
        ([], "messages", "a list of length 0"),
        (MESSAGES * 4097, "messages", "a list of length 4097"),
        ([SECRET], "messages[0]", "a string of length 16"),
        (message(role=SECRET), "messages[0].role", "a string of length 16"),
        (message(content=3), "messages[0].content", "3"),
        (message(content=None), "messages[0].content", "null"),
        (message(content=[]), "messages[0].content", "a list of length 0"),
        (message(content=TEXT_PARTS[:1] * (MAX_PARTS + 1)), "messages[0].content", f"a list of length {MAX_PARTS + 1}"),
        (message(content=[{"type": "text", "text": 7}]), "messages[0].content[0].text", "7"),
        (message(content=[{"type": SECRET, "text": "t"}]), "messages[0].content[0].type", "a string of length 16"),
        (message(name="n" * 65), "messages[0].name", "a string of length 65"),
        (message(name=5), "messages[0].name", "5"),
        (message(role=5), "messages[0].role", "5"),
        ([*MESSAGES, *message(role="tool", tool_call_id="")], "messages[1].tool_call_id", "a string of length 0"),
        (called(id=5), "messages[1].tool_calls[0].id", "5"),
        (called(type="custom"), "messages[1].tool_calls[0].type", "a string of length 6"),
        (
            called(function={"name": "f", "arguments": {}}),
            "messages[1].tool_calls[0].function.arguments",
            "an object",
        ),
        (message(role="assistant", audio={}), "messages[0].audio", "an object"),
        (message(role="assistant", encrypted_content=SECRET), "messages[0].encrypted_content", "a string of length 16"),
        (message(role="assistant", parsed=nested(MAX_LEVELS + 1)), "messages[0].parsed", "an object"),
        (message(role="assistant", parsed=[1] * MAX_VALUES), "messages[0].parsed", f"a list of length {MAX_VALUES}"),
        (
            called(function={"name": "f", "arguments": "{}", "parsed_arguments": nested(MAX_LEVELS + 1)}),
            "messages[1].tool_calls[0].function.parsed_arguments",
            "an object",
        ),
        (
            message(content=[TEXT_PARTS[0] | {"cache_control": nested(MAX_MARK_LEVELS + 1)}]),
            "messages[0].content[0].cache_control",
            "an object",
        ),
        (
            message(content=[TEXT_PARTS[0] | {"prompt_cache_breakpoint": SECRET}]),
            "messages[0].content[0].prompt_cache_breakpoint",
            "a string of length 16",
        ),
    ],
    "stream": [(1, "stream", "1"), ("true", "stream", "a string of length 4")],
    "stream_options": [
        (True, "stream_options", "true"),
        ({"include_usage": 1}, "stream_options.include_usage", "1"),
        ({"continuous_usage_stats": "yes"}, "stream_options.continuous_usage_stats", "a string of length 3"),
    ],
    "max_tokens": [
        (0, "max_tokens", "0"),
        ((1 << 24) + 1, "max_tokens", "16777217"),
        (1.0, "max_tokens", "1.0"),
        ("1", "max_tokens", "a string of length 1"),
        (True, "max_tokens", "true"),
        (10**100, "max_tokens", "1" + "0" * 31),
    ],
    "max_completion_tokens": [
        (0, "max_completion_tokens", "0"),
        ((1 << 24) + 1, "max_completion_tokens", "16777217"),
        (1.5, "max_completion_tokens", "1.5"),
    ],
    "temperature": [
        (-0.01, "temperature", "-0.01"),
        (2.01, "temperature", "2.01"),
        ("1", "temperature", "a string of length 1"),
        (False, "temperature", "false"),
        (float("nan"), "temperature", "nan"),
        (float("inf"), "temperature", "inf"),
    ],
    "top_p": [(0, "top_p", "0"), (1.01, "top_p", "1.01"), ([], "top_p", "a list of length 0")],
    "top_k": [
        (-2, "top_k", "-2"),
        (0, "top_k", "0"),
        ((1 << 24) + 1, "top_k", "16777217"),
        (1.5, "top_k", "1.5"),
    ],
    "n": [(0, "n", "0"), (11, "n", "11"), (1.0, "n", "1.0"), ("2", "n", "a string of length 1")],
    "stop": [
        (1, "stop", "1"),
        ("", "stop", "a string of length 0"),
        ("s" * 257, "stop", "a string of length 257"),
        (["s"] * 5, "stop", "a list of length 5"),
        (["s", "s" * 257], "stop[1]", "a string of length 257"),
        (["s", 1], "stop[1]", "1"),
        ({SECRET: SECRET}, "stop", "an object"),
    ],
    "presence_penalty": [(-2.01, "presence_penalty", "-2.01"), (2.01, "presence_penalty", "2.01")],
    "frequency_penalty": [(-3, "frequency_penalty", "-3"), (3, "frequency_penalty", "3")],
    "logprobs": [(1, "logprobs", "1"), (SECRET, "logprobs", "a string of length 16")],
    "top_logprobs": [(-1, "top_logprobs", "-1"), (21, "top_logprobs", "21"), (True, "top_logprobs", "true")],
    "logit_bias": [
        ([], "logit_bias", "a list of length 0"),
        ({"5": 101}, "logit_bias.5", "101"),
        ({"5": -101}, "logit_bias.5", "-101"),
        ({"5": SECRET}, "logit_bias.5", "a string of length 16"),
        ({str(token): 1 for token in range(MAX_BIASES + 1)}, "logit_bias", "an object"),
    ],
    "seed": [
        (1 << 63, "seed", str(1 << 63)),
        (-(1 << 63) - 1, "seed", str(-(1 << 63) - 1)),
        (1.5, "seed", "1.5"),
    ],
    "ignore_eos": [("yes", "ignore_eos", "a string of length 3"), (0, "ignore_eos", "0")],
    "user": [(1, "user", "1"), (SECRET * 33, "user", "a string of length 528")],
}

REFUSED |= {
    "min_p": [(-0.1, "min_p", "-0.1"), (1.1, "min_p", "1.1")],
    "repetition_penalty": [(0, "repetition_penalty", "0"), (2.1, "repetition_penalty", "2.1")],
    "use_beam_search": [(1, "use_beam_search", "1"), ("true", "use_beam_search", "a string of length 4")],
    "best_of": [(0, "best_of", "0"), (21, "best_of", "21"), (2.0, "best_of", "2.0")],
    "length_penalty": [(11, "length_penalty", "11"), ("1", "length_penalty", "a string of length 1")],
    "tools": [
        ([], "tools", "a list of length 0"),
        ({}, "tools", "an object"),
        ([tool()] * (MAX_TOOLS + 1), "tools", f"a list of length {MAX_TOOLS + 1}"),
        ([SECRET], "tools[0]", "a string of length 16"),
        ([{"type": "web_search"}], "tools[0].type", "a string of length 10"),
        ([tool(name="a b")], "tools[0].function.name", "a string of length 3"),
        ([tool(parameters=[])], "tools[0].function.parameters", "a list of length 0"),
        ([tool(parameters=nested(MAX_SCHEMA_DEPTH + 1))], "tools[0].function.parameters", "an object"),
        (
            [tool(), tool(parameters={"enum": ["v"] * MAX_SCHEMA_VALUES})],
            "tools[1].function.parameters",
            "an object",
        ),
        ([tool(parameters={"$ref": f"https://{SECRET}"})], "tools[0].function.parameters", "an object"),
        ([tool(parameters={"a": [{"$dynamicRef": SECRET}]})], "tools[0].function.parameters", "an object"),
        ([tool(parameters={"const": 1 << 64})], "tools[0].function.parameters", "an object"),
        ([tool(parameters={"pattern": "a" * 1025})], "tools[0].function.parameters", "an object"),
        ([tool(parameters={"const": float("inf")})], "tools[0].function.parameters", "an object"),
    ],
    "tool_choice": [
        (SECRET, "tool_choice", "a string of length 16"),
        ({"type": "allowed_tools"}, "tool_choice.type", "a string of length 13"),
        ({"type": "function", "function": {"name": ""}}, "tool_choice.function.name", "a string of length 0"),
    ],
    "parallel_tool_calls": [(1, "parallel_tool_calls", "1")],
    "response_format": [
        ("json", "response_format", "a string of length 4"),
        ({"type": "structural_tag"}, "response_format.type", "a string of length 14"),
        (json_schema(name=""), "response_format.json_schema.name", "a string of length 0"),
        (json_schema([]), "response_format.json_schema.schema", "a list of length 0"),
        (json_schema({"maxLength": MAX_SCHEMA_COUNT + 1}), "response_format.json_schema.schema", "an object"),
        (json_schema({"$ref": "file:///x"}), "response_format.json_schema.schema", "an object"),
    ],
    "reasoning_effort": [("most", "reasoning_effort", "a string of length 4")],
    "thinking": [({"type": SECRET}, "thinking.type", "a string of length 16"), (True, "thinking", "true")],
    "modalities": [(["audio"], "modalities[0]", "a string of length 5"), ([], "modalities", "a list of length 0")],
    "verbosity": [("low", "verbosity", "a string of length 3")],
    "service_tier": [("flex", "service_tier", "a string of length 4")],
    "store": [(True, "store", "true"), (0, "store", "0")],
    "safety_identifier": [("s" * 513, "safety_identifier", "a string of length 513")],
    "prompt_cache_key": [("s" * 513, "prompt_cache_key", "a string of length 513")],
    "prompt_cache_retention": [(24, "prompt_cache_retention", "24")],
    "prompt_cache_options": [
        ([], "prompt_cache_options", "a list of length 0"),
        ({"a": [0] * MAX_MARK_VALUES}, "prompt_cache_options", "an object"),
    ],
    "metadata": [({"a": 1}, "metadata.a", "1"), ({str(k): "v" for k in range(17)}, "metadata", "an object")],
}


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(field, case, id=f"{field}-{number}")
        for field, values in table.items()
        for number, case in enumerate(values)
    ]


def test_the_tables_cover_every_field() -> None:
    assert set(ACCEPTED) == set(REFUSED) == set(ChatRequest.model_fields) - REFUSED_FIELDS


@pytest.mark.parametrize(("field", "value"), cases(ACCEPTED))
def test_an_allowed_value_is_accepted(field: str, value: Any) -> None:
    parsed = getattr(check_chat(body(**{field: value})), field)
    assert field in ("messages", "tools", "response_format", "thinking") or parsed == value


@pytest.mark.parametrize(("field", "case"), cases(REFUSED))
def test_a_wrong_value_is_refused_by_name_and_never_repeated(field: str, case: tuple[Any, str, str]) -> None:
    value, param, came = case
    error = refusal(**{field: value})
    assert error.status == 400
    assert error.param == param
    assert error.message.startswith(f"{param} is {came}")
    assert len(error.message) > len(f"{param} is {came}.")  # and what is allowed
    assert SECRET not in json.dumps(error.body())


@pytest.mark.parametrize("name", sorted(REFUSED_FIELDS))
def test_what_is_not_served_is_refused_with_a_hint_but_null_asks_for_nothing(name: str) -> None:
    for value in (SECRET, True, [], {"a": SECRET}):
        error = refusal(**{name: value})
        assert (error.param, error.body()["error"]["code"]) == (name, "unsupported_parameter")
        assert error.message.startswith(f"{name} is not supported: ")
        assert SECRET not in error.message
    check_chat(body(**{name: None}))


@pytest.mark.parametrize("kind", OTHER_PARTS)
def test_content_that_is_not_text_is_refused_by_its_kind(kind: str) -> None:
    part = {"type": kind, kind: {"url": f"https://{SECRET}"}}
    error = refusal(messages=[*MESSAGES, *message(content=[*TEXT_PARTS, part])])
    assert (error.param, error.args[2]) == ("messages[1].content[2].type", "unsupported_content")
    assert kind in error.message
    assert SECRET not in error.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"top_logprobs": 1, "logprobs": False}, "top_logprobs"),
        ({"stream_options": {}}, "stream_options"),
        ({"stream_options": {"include_usage": True}, "stream": False}, "stream_options"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "look_up"}}}, "tool_choice"),
        (
            {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "other"}}},
            "tool_choice.function.name",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": json_schema() | {"type": "text"}}, "response_format.json_schema"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
        ({"messages": [*MESSAGES, {"role": "assistant", "tool_calls": []}]}, "messages[1].content"),
        ({"messages": [*MESSAGES, {"role": "assistant", "reasoning": "", "refusal": None}]}, "messages[1].content"),
        ({"tools": [tool(), tool(parameters=LONG, strict=True)]}, "tools[1].function.parameters"),
        ({"tools": [tool(parameters=LONG)], "tool_choice": "required"}, "tools[0].function.parameters"),
        (
            {"tools": [tool(parameters=LONG)], "tool_choice": {"type": "function", "function": {"name": "look_up"}}},
            "tools[0].function.parameters",
        ),
    ],
)
def test_a_rule_over_several_fields_names_the_one_to_change(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields).param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"top_logprobs": 20, "logprobs": True},
        {"stream_options": {"include_usage": True}, "stream": True},
        {"max_tokens": None, "max_completion_tokens": 1},
        {"tools": [tool()], "tool_choice": "auto"},
        {"tools": [tool(parameters=LONG, strict=False)], "tool_choice": "auto"},
        {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "look_up"}}},
    ],
)
def test_what_keeps_the_rules_over_several_fields_is_accepted(fields: dict[str, Any]) -> None:
    check_chat(body(**fields))


BEAMS = {"use_beam_search": True, "n": 2, "temperature": 0}


def settled(terms: ChatTerms | None = None, **fields: Any) -> Any:
    sent = body(**fields)
    return settle(check_chat(sent), sent, terms or ChatTerms())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2, "temperature": 0}, "n"),
        ({"n": 2, "temperature": 0.0}, "n"),
        ({"n": 10, "top_k": 1}, "n"),
        (BEAMS | {"n": 1}, "n"),
        (BEAMS | {"n": None}, "n"),
        (BEAMS | {"top_p": 0.9}, "top_p"),
        (BEAMS | {"top_k": 5}, "top_k"),
        (BEAMS | {"temperature": 1.0}, "use_beam_search"),
        (BEAMS | {"temperature": None}, "use_beam_search"),
        (BEAMS | {"stop": "a"}, "stop"),
        (BEAMS | {"presence_penalty": 1}, "presence_penalty"),
        (BEAMS | {"logit_bias": {"5": 1}}, "logit_bias"),
        (BEAMS | {"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"length_penalty": 1.5}, "length_penalty"),
        ({"length_penalty": 0, "best_of": 2}, "length_penalty"),
        (BEAMS | {"length_penalty": 2.0}, "length_penalty"),
        (BEAMS | {"length_penalty": 2.0, "best_of": 2, "top_k": 3}, "top_k"),
    ],
)
def test_the_rules_of_sampling_name_the_field_that_is_not_temperature(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidField) as caught:
        settled(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "temperature": 0},
        {"n": 2},
        {"n": 2, "top_k": -1, "temperature": 1},
        {"n": 2, "temperature": 0.1, "top_k": 2},
        BEAMS,
        BEAMS | {"n": 10, "top_p": 1.0, "top_k": -1, "stop": [], "presence_penalty": 0, "repetition_penalty": 1},
        {"length_penalty": 1.0},
    ],
)
def test_a_body_with_nothing_to_change_passes_byte_for_byte(fields: dict[str, Any]) -> None:
    assert settled(**fields) == body(**fields)


def test_best_of_is_checked_and_left_out() -> None:
    sent = BEAMS | {"best_of": 2, "length_penalty": 2.0, "user": "Zoë"}
    assert json.loads(settled(**sent)) == json.loads(body(**BEAMS, length_penalty=2.0, user="Zoë"))


def test_null_is_left_out_where_the_engine_does_not_take_it() -> None:
    nulls = dict.fromkeys(("ignore_eos", "use_beam_search", "length_penalty", "tool_choice", "best_of", "top_p"))
    assert json.loads(settled(**nulls)) == json.loads(body(top_p=None))


def test_defaults_fill_what_a_request_leaves_out() -> None:
    terms = ChatTerms(defaults=PROFILES["maas"])
    sent = {"temperature": None, "top_p": 0.5, "seed": (1 << 63) - 1}
    got = json.loads(settled(terms, **sent))
    assert got == json.loads(body(**sent)) | PROFILES["maas"] | {"top_p": 0.5}
    whole = PROFILES["maas"] | {"max_tokens": 3}
    assert settled(terms, **whole) == body(**whole)


def test_arks_switch_becomes_the_effort_that_every_engine_knows() -> None:
    for kind, effort in (("disabled", "none"), ("enabled", None), ("auto", None)):
        got = json.loads(settled(thinking={"type": kind}))
        assert got == json.loads(body()) | ({"reasoning_effort": effort} if effort else {})
    assert json.loads(settled(thinking={"type": "disabled"}, reasoning_effort="low"))["reasoning_effort"] == "low"
    terms = ChatTerms(defaults={"reasoning_effort": "high"})
    assert json.loads(settled(terms, thinking={"type": "disabled"}))["reasoning_effort"] == "none"


@pytest.mark.parametrize(
    ("came", "goes"),
    [
        (ECHOED | {"encrypted_content": None, "parsed": {"a": 1}}, ECHOED),
        (ECHOED | {"content": None, "tool_calls": None}, ECHOED | {"content": "", "tool_calls": None}),
        ({"role": "assistant", "refusal": "No."}, {"role": "assistant", "refusal": "No.", "content": "No."}),
        (message(name=None)[0], MESSAGES[0]),
        (UNTYPED, called(**UNTYPED["tool_calls"][0])[1] | {"content": "Hm."}),
        (message(content=[TEXT_PARTS[0] | MARKS])[0], message(content=TEXT_PARTS[:1])[0]),
        (
            called(function={"name": "f", "arguments": "{}", "parsed_arguments": {}})[1],
            called(function={"name": "f", "arguments": "{}"})[1],
        ),
    ],
    ids=["parsed", "thoughts alone", "a refusal", "no name", "no type", "marks", "arguments"],
)
def test_turns_come_as_clients_have_them_and_go_as_engines_take_them(came: Any, goes: Any) -> None:
    kept = [*MESSAGES, ECHOED, *called()]
    got = json.loads(settled(messages=[*kept, came, *MESSAGES]))
    assert got["messages"] == [*kept, goes, *MESSAGES]


def test_a_default_length_gives_way_to_the_field_of_the_newer_name() -> None:
    got = json.loads(settled(ChatTerms(defaults={"max_tokens": 16}), max_completion_tokens=99))
    assert (got["max_completion_tokens"], got.get("max_tokens")) == (99, None)


def test_the_rules_hold_after_the_defaults() -> None:
    greedy = ChatTerms(defaults={"temperature": 0.0})
    with pytest.raises(InvalidField) as caught:
        settled(greedy, n=2)
    assert caught.value.param == "n"
    assert json.loads(settled(greedy, use_beam_search=True, n=2))["temperature"] == 0
    with pytest.raises(InvalidField, match="temperature is 1"):
        settled(ChatTerms(defaults=PROFILES["maas"]), use_beam_search=True, n=2)


@pytest.mark.parametrize("wanted", [{"type": "json_object"}, json_schema()])
def test_structured_output_is_for_endpoints_that_opt_in(wanted: dict[str, Any]) -> None:
    with pytest.raises(InvalidField, match=r"features\.structured_output") as caught:
        settled(response_format=wanted)
    assert (caught.value.param, caught.value.args[2]) == ("response_format.type", "feature_disabled")
    assert settled(ChatTerms(structured_output=True), response_format=wanted) == body(response_format=wanted)
    assert settled(response_format={"type": "text"}) == body(response_format={"type": "text"})


@pytest.mark.parametrize("choice", [{}, {"tool_choice": "auto"}, {"tool_choice": "required"}])
def test_tools_are_for_models_that_call_them(choice: dict[str, Any]) -> None:
    with pytest.raises(InvalidField) as caught:
        settled(tools=[tool()], **choice)
    assert (caught.value.param, caught.value.args[2]) == ("tools", "feature_disabled")
    assert settled(ChatTerms(tools=True), tools=[tool()], **choice) == body(tools=[tool()], **choice)
    assert settled(tools=[tool()], tool_choice="none") == body(tools=[tool()], tool_choice="none")


def test_missing_fields_are_named() -> None:
    for field in ("model", "messages"):
        with pytest.raises(InvalidField, match=f"^{field} is missing"):
            check_chat(json.dumps({k: v for k, v in json.loads(body()).items() if k != field}).encode())
    assert refusal(messages=[{"role": "user"}]).param == "messages[0].content"
    assert refusal(messages=[{"content": "hello"}]).param == "messages[0].role"
    assert refusal(messages=message(role="tool")).param == "messages[0].tool_call_id"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"cache_salt": SECRET}, "cache_salt"),
        ({"request_id": SECRET}, "request_id"),
        ({"priority": 1}, "priority"),
        ({"kv_transfer_params": {}}, "kv_transfer_params"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        ({"guided_json": {}}, "guided_json"),
        ({"vllm_xargs": {}}, "vllm_xargs"),
        ({"messages": message(strange=SECRET)}, "messages[0].strange"),
        ({"stream": True, "stream_options": {"stream": True}}, "stream_options.stream"),
        ({"messages": message(content=[{"type": "text", "text": "t", "more": 1}])}, "messages[0].content[0].more"),
    ],
)
def test_an_unknown_field_is_named(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert (error.param, error.body()["error"]["code"]) == (param, "unknown_field")
    assert SECRET not in error.message


def test_an_unknown_field_of_any_length_gives_a_short_error() -> None:
    assert len(json.dumps(refusal(**{"x" * 100_000: 1}).body())) < 1000


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"nonsense", b"\xff\xfe", b"[]", b'"text"', b"1", b"null", b"[" * 100_000, b'{"model": "a"} trailing'],
)
def test_what_is_not_a_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest, match=r"not valid JSON|must be a JSON object") as caught:
        check_chat(raw)
    assert caught.value.body()["error"]["code"] == "invalid_json"
