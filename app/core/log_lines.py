"""Lines of units' logs: kept as text, and put in one order. Pure."""

import re
from datetime import UTC, datetime
from typing import NamedTuple

_FORMAT = "%Y-%m-%dT%H:%M:%S"
_PLACE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)~([A-Za-z0-9]{1,32})~(\d{1,6})~(\d{1,9})", re.ASCII)


class Place(NamedTuple):
    """Where a line stands among all of an endpoint's: they are in this order."""

    written_at: str
    """RFC 3339 in UTC to the millisecond, so that texts sort as times do."""
    unit: str
    number: int
    """Of the object it is in, among those of its unit and hour."""
    line: int
    """In that object."""

    def __str__(self) -> str:
        return "~".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> "Place | None":
        """The place that `str` wrote, or None."""
        found = _PLACE.fullmatch(text)
        return cls(found[1], found[2], int(found[3]), int(found[4])) if found else None


class LogLine(NamedTuple):
    """One line of a unit's log."""

    place: Place
    text: str


def as_text(line: LogLine) -> str:
    """The line as people read it."""
    return f"{line.place.written_at} {line.place.unit} {line.text}"


class Wanted(NamedTuple):
    """Which lines: of one endpoint, written in [since, until), that contain `search`, whatever the case."""

    endpoint_id: str
    search: str = ""
    since: datetime | None = None
    until: datetime | None = None
    newest_first: bool = False

    def matches(self, line: LogLine) -> bool:
        """Whether a line contains what is searched for."""
        return self.search.casefold() in line.text.casefold()


def timestamp(moment: datetime) -> str:
    """As it stands before each line."""
    utc = moment.astimezone(UTC)
    return f"{utc:{_FORMAT}}.{utc.microsecond // 1000:03}Z"


def write(line: str, moment: datetime) -> str:
    """The line of an object, without its end."""
    return f"{timestamp(moment)} {line}"


def read(text: str, unit: str, number: int) -> list[LogLine]:
    """The lines of an object."""
    found = []
    for index, line in enumerate(text.split("\n")):
        written_at, _, rest = line.partition(" ")
        if written_at:
            found.append(LogLine(Place(written_at, unit, number, index), rest))
    return found
