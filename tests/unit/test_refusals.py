"""What is passed on of an engine's refusals, and what is not."""

import pytest

from app.core.errors import InternalError, TooManyRequests, Unavailable
from app.unit.refusals import invalid, refusal


@pytest.mark.parametrize("param", [None, "messages", "chat_template", "response_format", "tools", "tool_calls"])
@pytest.mark.parametrize("status", [400, 422, 404, 501, 429, 503, 500])
def test_free_text_is_not_passed_on(status: int, param: str | None) -> None:
    for said in ("Roles must alternate: zebra", "zebra", "top_kzebra", "Failed to convert {'zebra': 1}"):
        assert "zebra" not in str(refusal(status, said, param).body())


@pytest.mark.parametrize(
    ("said", "param"), [("temperature must be in [0, 2], got 3.0.", "temperature"), ("top_k must be 0, got -5.", None)]
)
def test_what_is_said_of_a_number_is_passed_on_with_its_field(said: str, param: str | None) -> None:
    error = refusal(400, f"{said} (parameter=x, value=zebra)", param)
    assert (error.status, error.message, error.param) == (400, said, said.split(maxsplit=1)[0])


def test_a_prompt_that_is_too_long_is_told_by_its_numbers() -> None:
    error = refusal(400, "maximum context length is 64 tokens (parameter=input_tokens, value=99)", "input_tokens")
    assert (error.message, error.param) == ("maximum context length is 64 tokens", "messages")
    assert error.args[2] == "context_length_exceeded"


def test_other_statuses_keep_their_kind() -> None:
    kinds = [type(refusal(status, "zebra", None)) for status in (429, 503, 500)]
    assert kinds == [TooManyRequests, Unavailable, InternalError]


def test_of_a_check_only_pydantics_own_words_are_passed_on() -> None:
    assert invalid("missing", "Field required", "messages").message == "Field required"
    assert "zebra" not in invalid("value_error", "Value error, zebra", None).message
