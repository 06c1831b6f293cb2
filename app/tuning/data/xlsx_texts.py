"""The texts that the cells of a workbook share, in a file: there may be gigabytes of them."""

import os
import re
import tempfile
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from app.tuning.data.conversations import MAX_CHARACTERS
from app.tuning.data.xlsx_package import Package, damaged, parse

MAX_TEXTS = 3 << 20
"""A sheet has 1,048,576 rows."""

_ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")


class TextBuilder:
    """One text, from the pieces that XML gives; phonetic notes are left out."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._inside = self._notes = False

    def start(self, name: str) -> None:
        if name == "t":
            self._inside = True
        elif name == "rPh":
            self._notes = True

    def end(self, name: str) -> None:
        if name == "t":
            self._inside = False
        elif name == "rPh":
            self._notes = False

    def text(self, piece: str) -> None:
        if self._inside and not self._notes and self._length <= MAX_CHARACTERS:
            self._pieces.append(piece)
            self._length += len(piece)

    def take(self) -> str | None:
        """The text, None for one that is too long; the next begins."""
        text = "".join(self._pieces) if self._length <= MAX_CHARACTERS else None
        self._pieces.clear()
        self._length = 0
        return _ESCAPE.sub(_unescaped, text) if text and "_x" in text else text


class SharedTexts:
    """By their numbers."""

    def __init__(self, file: int, ends: "array[int]"):
        self._file = file
        self._ends = ends

    def __getitem__(self, number: int) -> str | None:
        """None for one that is too long. Raises IndexError."""
        if not 0 <= number < len(self._ends):
            raise IndexError(number)
        start, end = self._ends[number - 1] if number else 0, self._ends[number]
        text = os.pread(self._file, end - start, start).decode("utf-8", "surrogatepass")
        return None if text == _TOO_LONG else text


@contextmanager
def shared_texts(package: Package, part: str | None, scratch: Path | None) -> Iterator[SharedTexts]:
    """All texts of the part, None for no part. Raises Wrong."""
    with tempfile.TemporaryFile(dir=scratch) as file:
        ends = array("q")
        if part is not None:
            builder = TextBuilder()

            def start(name: str, attributes: Mapping[str, str]) -> None:
                builder.start(name)

            def end(name: str) -> None:
                builder.end(name)
                if name == "si":
                    if len(ends) >= MAX_TEXTS:
                        raise damaged("has more texts than a sheet has cells")
                    text = builder.take()
                    written = file.write((_TOO_LONG if text is None else text).encode("utf-8", "surrogatepass"))
                    ends.append(written + (ends[-1] if ends else 0))

            for _ in parse(package.chunks(part), start, end, builder.text):
                pass
            file.flush()
        yield SharedTexts(file.fileno(), ends)


_TOO_LONG = "\0too long"
"""No text of XML holds NUL."""


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))
