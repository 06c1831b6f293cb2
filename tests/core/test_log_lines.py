"""Lines of units' logs: as they are kept, and in which order they are."""

from datetime import UTC, datetime, timedelta, timezone

from app.core.log_lines import Place, Wanted, read, write

MOMENT = datetime(2026, 1, 31, 9, 30, 5, 123999, tzinfo=UTC)


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
