"""Lines of logs: what others may read of them, and in which order they are."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from app.core.keys import issue_key
from app.core.log_lines import MAX_CHARACTERS, Place, Wanted, clean, read, write

MOMENT = datetime(2026, 1, 31, 9, 30, 5, 123999, tzinfo=UTC)


def test_keys_are_not_in_logs() -> None:
    key = issue_key()
    for line in (f"key {key}", f"{key}", f"Authorization: Bearer {key}", f'"{key}",', f"x{key}y"):
        assert key not in clean(line)
        assert key[3:20] not in clean(line)
    assert "abcdefgh12345678" not in clean("authorization: bearer abcdefgh12345678")
    assert clean("the bearer of news") == "the bearer of news"


@pytest.mark.parametrize(
    ("line", "cleaned"),
    [
        ("INFO [engine.py:12] loaded\n", "INFO [engine.py:12] loaded"),
        ("  indented\twith a tab  ", "  indented\twith a tab"),
        ("\x1b[32mgreen\x1b[0m \x1b[1;31mred", "green red"),
        ("10 %\r50 %\r100 %\n", "100 %"),
        ("a\x00b\x07c\u2028d\x85e", "a b c d e"),
        ('File "/opt/app/unit/engine.py", line 3', 'File "engine.py", line 3'),
        ("中文也行", "中文也行"),
        ("\n", ""),
    ],
)
def test_lines_are_fit_to_be_read(line: str, cleaned: str) -> None:
    assert clean(line) == cleaned


def test_no_line_is_endless() -> None:
    long = clean("x" * 100_000)
    assert len(long) == MAX_CHARACTERS
    assert long.endswith("(cut)")
    assert clean("y" * MAX_CHARACTERS) == "y" * MAX_CHARACTERS


def test_lines_come_back_as_they_were_written() -> None:
    elsewhere = MOMENT.astimezone(timezone(timedelta(hours=8)))
    text = f"{write('one two', MOMENT)}\n{write('three', elsewhere)}\n"
    first, second = read(text, "abc", 7)
    assert first.place == Place("2026-01-31T09:30:05.123Z", "abc", 7, 0)
    assert (first.text, second.text) == ("one two", "three")
    assert second.place == first.place._replace(line=1)


def test_a_place_is_said_and_understood() -> None:
    place = Place("2026-01-31T09:30:05.123Z", "ab1", 0, 12)
    assert Place.parse(str(place)) == place
    for nonsense in ("", "x", str(place) + "~1", str(place)[1:], "2026-01-31T09:30:05.123Z~a/b~0~1", f"{place}\n"):
        assert Place.parse(nonsense) is None


def test_places_are_in_the_order_of_time() -> None:
    earlier, later = Place("2026-01-31T09:30:05.123Z", "z", 5, 9), Place("2026-01-31T09:30:05.124Z", "a", 0, 0)
    assert earlier < later
    assert earlier < earlier._replace(line=10) < earlier._replace(number=6, line=0)


def test_a_search_does_not_mind_the_case() -> None:
    (line,) = read(write("Out Of Memory", MOMENT), "abc", 0)
    assert Wanted("ep-1", "of MEM").matches(line)
    assert not Wanted("ep-1", "memories").matches(line)
