"""Every field of a chat request: what is accepted, what is refused, and what the refusal may say."""

import json
from typing import Any

import pytest

from app.core.chat_rules import MAX_BIASES, MAX_PARTS, ChatRequest, check_chat
from app.core.errors import BadRequest, InvalidField

SECRET = "my-private-words"
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


ACCEPTED: dict[str, list[Any]] = {
    "model": ["m", "m" * 128],
    "messages": [
        *(message(role=role) for role in ("system", "developer", "user", "assistant", "tool")),
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
    ],
    "stream": [(1, "stream", "1"), ("true", "stream", "a string of length 4")],
    "stream_options": [
        (True, "stream_options", "true"),
        ({"include_usage": 1}, "stream_options.include_usage", "1"),
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

# What Ark's SDK sends in every request although nobody asked for it.
for name in (
    "function_call", "parallel_tool_calls", "reasoning_effort", "repetition_penalty", "response_format", "service_tier",
    "thinking", "tool_choice", "tools",
):  # fmt: skip
    ACCEPTED[name] = [None]
    REFUSED[name] = [([], name, "a list of length 0"), (True, name, "true"), (SECRET, name, "a string of length 16")]


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(field, case, id=f"{field}-{number}")
        for field, values in table.items()
        for number, case in enumerate(values)
    ]


def test_the_tables_cover_every_field() -> None:
    assert set(ACCEPTED) == set(REFUSED) == set(ChatRequest.model_fields)


@pytest.mark.parametrize(("field", "value"), cases(ACCEPTED))
def test_an_allowed_value_is_accepted(field: str, value: Any) -> None:
    parsed = getattr(check_chat(body(**{field: value})), field)
    assert field == "messages" or parsed == value


@pytest.mark.parametrize(("field", "case"), cases(REFUSED))
def test_a_wrong_value_is_refused_by_name_and_never_repeated(field: str, case: tuple[Any, str, str]) -> None:
    value, param, came = case
    error = refusal(**{field: value})
    assert error.status == 400
    assert error.param == param
    assert error.message.startswith(f"{param} is {came}")
    assert len(error.message) > len(f"{param} is {came}.")  # and what is allowed
    assert SECRET not in json.dumps(error.body())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2, "temperature": 0}, "n"),
        ({"n": 2, "top_k": 1}, "n"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"top_logprobs": 1, "logprobs": False}, "top_logprobs"),
        ({"stream_options": {}}, "stream_options"),
        ({"stream_options": {"include_usage": True}, "stream": False}, "stream_options"),
    ],
)
def test_a_rule_over_several_fields_names_the_one_to_change(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields).param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "temperature": 0},
        {"n": 2, "temperature": 0.1, "top_k": 2},
        {"top_logprobs": 20, "logprobs": True},
        {"stream_options": {"include_usage": True}, "stream": True},
    ],
)
def test_what_keeps_the_rules_over_several_fields_is_accepted(fields: dict[str, Any]) -> None:
    check_chat(body(**fields))


def test_missing_fields_are_named() -> None:
    for field in ("model", "messages"):
        with pytest.raises(InvalidField, match=f"^{field} is missing"):
            check_chat(json.dumps({k: v for k, v in json.loads(body()).items() if k != field}).encode())
    assert refusal(messages=[{"role": "user"}]).param == "messages[0].content"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 2}, "best_of"),
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
