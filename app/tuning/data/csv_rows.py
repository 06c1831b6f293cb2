"""The rows of a CSV file: commas between texts, quotes around those that hold commas, quotes or line ends."""

import csv
from collections.abc import Iterator
from pathlib import Path

from app.tuning.data.conversations import MAX_CHARACTERS
from app.tuning.data.lines import Watch, read_lines
from app.tuning.data.problems import ProblemList, Wrong

_QUOTES = 'put texts with commas or line ends in quotes ("), and write a quote inside them twice ("")'


def csv_rows(path: Path, problems: ProblemList, watch: Watch) -> Iterator[tuple[int, list[str]]]:
    """(The line it begins on, its texts) of each row; what cannot be read becomes a problem."""
    csv.field_size_limit(MAX_CHARACTERS)  # of the whole process; what is longer never comes this far
    record = _Record(read_lines(path, "", problems, watch))
    reader = csv.reader(record, strict=True)
    while True:
        record.begin()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            end = "end" in str(error)
            cause = "a quote that opens here is never closed" if end else "a quoted text goes on after its quote"
            problems.add(record.line, Wrong("", cause, _QUOTES))
        except Wrong as wrong:  # somewhere in the rest of the file: nobody knows where the next row begins
            raise problems.stop(record.line, wrong) from None
        else:
            yield record.line, row


class _Record:
    """The lines that one row takes, bounded: a quote that is never closed would take the rest of the file."""

    def __init__(self, lines: Iterator[tuple[int, str]]):
        self._lines = lines
        self._first = 0
        self._characters = 0

    @property
    def line(self) -> int:
        return self._first

    def begin(self) -> None:
        self._first = self._characters = 0

    def __iter__(self) -> "_Record":
        return self

    def __next__(self) -> str:
        number, text = next(self._lines)
        self._first = self._first or number
        self._characters += len(text)
        if self._characters > MAX_CHARACTERS:
            raise Wrong("", f"a row has more than {MAX_CHARACTERS} characters; is a quote never closed?", _QUOTES)
        return text
