import pytest
from pydantic import TypeAdapter, ValidationError

from app.core.texts import Line

LINE = TypeAdapter(Line)


@pytest.mark.parametrize("text", ["", "for the demo", "给演示用", "a@example.com (Ann's)", "🙂"])
def test_a_line_is_taken_as_it_is(text: str) -> None:
    assert LINE.validate_python(text) == text


@pytest.mark.parametrize("text", ["a\nb", "a\x00", "\x1b[31m", "a\u2028b", "\ud800", "\u202eabc"])
def test_what_could_break_a_line_or_a_database_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        LINE.validate_python(text)
