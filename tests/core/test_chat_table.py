"""The fields of a chat request as people read them."""

from app.core.chat_rules import ChatRequest
from app.core.chat_table import FieldRow, fields_table


def test_every_field_has_a_row_that_says_something() -> None:
    rows = fields_table()
    assert [row.name for row in rows] == list(ChatRequest.model_fields)
    assert all(row.type and row.note for row in rows)
    assert {row.name for row in rows if row.type == "refused"} > {"chat_template", "prompt_embeds", "thinking"}


def test_a_row_has_the_type_the_range_and_both_defaults() -> None:
    rows = {row.name: row for row in fields_table()}
    assert rows["temperature"] == FieldRow(
        "temperature", "number", "at least 0, at most 2", "", "1.0", "0: greedy. Left out: the model's own, else 1."
    )
    assert (rows["max_tokens"].maas, rows["top_k"].maas, rows["n"].default) == ("16", "-1", "1")
    assert rows["top_p"].range == "above 0, at most 1"
    assert rows["stop"].type == "string or array"
    assert rows["stop"].range == "characters at least 1, characters at most 256; items at most 4"
    assert rows["tool_choice"].type == "string or object"
    assert rows["reasoning_effort"].range.startswith("none, minimal, low")
    assert rows["verbosity"].range == "medium"
