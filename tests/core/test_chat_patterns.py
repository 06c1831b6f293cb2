"""What a pattern comes to when an engine writes its repeats out."""

import json

import pytest

from app.core.chat_patterns import unrolled
from app.core.chat_rules import check_chat
from app.core.errors import InvalidField


@pytest.mark.parametrize(
    ("pattern", "characters"),
    [
        ("", 0),
        ("abc", 3),
        (r"\d{4}-\d{2}-\d{2}", 10),
        ("[0-9a-f]{8}-[0-9a-f]{4}", 13),
        ("[]", 1),
        ("[{]{3}", 3),
        (r"\{9\}", 3),
        ("a{1,5000}", 5000),
        ("a{5000,}", 5000),
        ("((a{1,99}b){1,99}c){1,99}", ((99 + 1) * 99 + 1) * 99),
        ("(a|b){10}", 30),
        ("a{99999999999999}", 999_999_999),
        ("(" * 500, 0),
        (")" * 3, 3),
    ],
)
def test_repeats_multiply_and_sequences_add_up(pattern: str, characters: int) -> None:
    assert unrolled(pattern) == characters


@pytest.mark.parametrize("place", ["pattern", "patternProperties"])
@pytest.mark.parametrize(("pattern", "fine"), [("^[a-z]{1,64}$", True), ("((a{1,99}b){1,99}c){1,99}", False)])
def test_a_pattern_that_binds_the_answer_and_comes_to_too_much_is_refused(place: str, pattern: str, fine: bool) -> None:
    schema = {"type": "object", place: pattern if place == "pattern" else {pattern: {}}}
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": schema}}
    asked = {"type": "json_schema", "json_schema": {"name": "f", "schema": schema}}
    chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    for more in ({"tools": [tool]}, {"response_format": asked}):
        body = json.dumps(chat | more).encode()
        if fine:
            check_chat(body)
        else:
            with pytest.raises(InvalidField, match="come to more than 2000 characters"):
                check_chat(body)
