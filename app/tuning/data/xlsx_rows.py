"""The rows of the one sheet of a workbook that holds data."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from app.tuning.data.conversations import MAX_CHARACTERS
from app.tuning.data.lines import Watch
from app.tuning.data.problems import ProblemList, Wrong
from app.tuning.data.tables import COLUMNS, Cell, NotText, Rows
from app.tuning.data.xlsx_package import Package, damaged, open_package, parse
from app.tuning.data.xlsx_texts import SharedTexts, TextBuilder, shared_texts

_AS_TEXT = "format the column as text and enter it again, or save the sheet as 'CSV UTF-8'"
_REFERENCE = re.compile(r"([A-Z]{1,3})([1-9][0-9]{0,6})", re.ASCII)
_KINDS = {"b": "is true or false, not text", "e": "is an error of a formula", "d": "is a date, not text"}
_MAX_WHOLE = 1 << 53  # beyond it Excel itself has lost digits


class Workbook:
    """An open workbook: its rows can be read again and again."""

    def __init__(self, package: Package, sheet: str, texts: SharedTexts):
        self._package = package
        self._sheet = sheet
        self._texts = texts

    def rows(self, problems: ProblemList, watch: Watch) -> Rows:
        """(Its number, its cells from column A, at least three) of each row that has cells."""
        reader = _Sheet(self._texts, problems)
        total, done = max(1, self._package.size_bytes(self._sheet)), 0

        def chunks() -> Iterator[bytes]:
            nonlocal done
            for chunk in self._package.chunks(self._sheet):
                done += len(chunk)
                yield chunk

        try:
            for _ in parse(chunks(), reader.start, reader.end, reader.text):
                yield from reader.take()
                watch(min(1.0, done / total))
        except Wrong as wrong:
            raise problems.stop(reader.row, wrong) from None


@contextmanager
def open_workbook(path: Path, scratch: Path | None) -> Iterator[Workbook]:
    """The workbook's one sheet with data; its texts are laid out in `scratch`. Raises Wrong."""
    with open_package(path) as package:
        (book, *_) = [part for kind, part in package.related("").values() if kind == "officeDocument"] or [""]
        related = package.related(book)
        sheets = [related[id_][1] for id_ in _sheets(package, book) if related.get(id_, ("",))[0] == "worksheet"]
        with_data = [sheet for sheet in sheets if _has_data(package, sheet)] if len(sheets) > 1 else sheets
        if len(with_data) > 1:
            raise Wrong("", "several sheets of the workbook hold data", "keep the one with the conversations")
        if not with_data:
            raise Wrong("", "no sheet of the workbook holds data", f"write {', '.join(COLUMNS)} and rows into one")
        texts = next((part for kind, part in related.values() if kind == "sharedStrings" and package.has(part)), None)
        with shared_texts(package, texts, scratch) as shared:
            yield Workbook(package, with_data[0], shared)


def _sheets(package: Package, book: str) -> list[str]:
    """The IDs of the workbook's sheets, in its order."""
    ids: list[str] = []

    def start(name: str, attributes: Mapping[str, str]) -> None:
        if name == "sheet" and len(ids) < 1000:
            ids.append(attributes.get("id", ""))

    for _ in parse(package.chunks(book), start):
        pass
    return ids


def _has_data(package: Package, sheet: str) -> bool:
    found = False

    def start(name: str, attributes: Mapping[str, str]) -> None:
        nonlocal found
        found = found or name in ("v", "is", "f")

    return any(found for _ in parse(package.chunks(sheet), start))


class _Sheet:
    """Hears the elements of a sheet and makes rows of them."""

    def __init__(self, texts: SharedTexts, problems: ProblemList):
        self._texts = texts
        self._problems = problems
        self.row = 0
        self._rows: list[tuple[int, list[Cell]]] = []
        self._cells: dict[int, Cell] = {}
        self._column = 0
        self._reference = ""
        self._type = ""
        self._formula = False
        self._value = ""
        self._pieces: list[str] = []
        """Of the value, which comes line by line: to add to a text takes as long as it is."""
        self._length = 0
        self._in_value = False
        self._inline = TextBuilder()

    def take(self) -> list[tuple[int, list[Cell]]]:
        """The rows since the last time."""
        taken, self._rows = self._rows, []
        return taken

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "row":
            number = attributes.get("r", str(self.row + 1))
            if not (number.isascii() and number.isdigit() and self.row < int(number[:9]) < 1 << 30):
                raise damaged("numbers its rows in no order")
            self.row, self._column = int(number), 0
        elif name == "c":
            self._reference = attributes.get("r", "")
            self._column = _column(self._reference) if self._reference else self._column + 1
            self._type, self._formula = attributes.get("t", "n"), False
            self._pieces, self._length = [], 0
        elif name == "v":
            self._in_value = True
        elif name == "f":
            self._formula = True
        elif name == "mergeCell":
            self._merged(attributes.get("ref", ""))
        else:
            self._inline.start(name)

    def end(self, name: str) -> None:
        if name == "v":
            self._in_value = False
        elif name == "c":
            cell = self._cell()
            if cell != "":
                # Whatever stands right of the columns is one too many, however far.
                self._cells[min(self._column, len(COLUMNS) + 1)] = cell
        elif name == "row":
            if self._cells:
                last = max(len(COLUMNS), *self._cells)
                self._rows.append((self.row, [self._cells.get(column, "") for column in range(1, last + 1)]))
                self._cells = {}
        else:
            self._inline.end(name)

    def text(self, piece: str) -> None:
        if not self._in_value:
            self._inline.text(piece)
        elif self._length <= MAX_CHARACTERS:
            self._pieces.append(piece)
            self._length += len(piece)

    def _cell(self) -> Cell:
        inline, self._value = self._inline.take(), "".join(self._pieces)
        if self._formula:
            return self._not_text("holds a formula", "replace it by its value: copy, then paste as values")
        if self._type in _KINDS:
            return self._not_text(_KINDS[self._type], _AS_TEXT)
        text: str | None = self._value
        if self._type == "inlineStr":
            text = inline
        elif self._type == "s" and self._value:
            try:
                text = self._texts[int(self._value[:9])]
            except (IndexError, ValueError):
                raise damaged("refers to a text that it does not have") from None
        elif self._type == "n" and self._value:
            return self._number()
        if text is None or len(text) > MAX_CHARACTERS:
            return self._not_text(f"is longer than {MAX_CHARACTERS} characters", "split the conversation")
        return text

    def _number(self) -> Cell:
        try:
            number = float(self._value[:40])
        except ValueError:
            raise damaged("holds a number that is none") from None
        if number.is_integer() and abs(number) < _MAX_WHOLE:
            return int(number)
        return self._not_text("is a number, not text or a whole number", _AS_TEXT)

    def _not_text(self, cause: str, fix: str) -> NotText:
        return NotText(self._reference if _REFERENCE.fullmatch(self._reference) else "a cell", cause, fix)

    def _merged(self, reference: str) -> None:
        first = _REFERENCE.match(reference)
        self._problems.add(
            int(first[2]) if first else self.row,
            Wrong(
                reference if re.fullmatch("[A-Z0-9:]{1,21}", reference) else "",
                "cells are merged, so that only the first has a value",
                "unmerge them, and fill in every row",
            ),
        )


def _column(reference: str) -> int:
    """1 for A, 27 for AA."""
    found = _REFERENCE.fullmatch(reference)
    if not found:
        raise damaged("names a cell that no sheet has")
    number = 0
    for letter in found[1]:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number
