"""A text file by lines, none of them longer than memory bears, in an encoding that is certain."""

import codecs
import io
from collections.abc import Callable, Iterator
from pathlib import Path

from app.tuning.data.conversations import MAX_CHARACTERS, first_surrogate
from app.tuning.data.problems import ProblemList, Wrong

Watch = Callable[[float], None]
"""Hears how much of a file has been read, from 0 to 1, now and then."""

_TOLD_EVERY = 1000
_SAVE_AS_UTF_8 = "save the file as UTF-8 (in Excel: 'CSV UTF-8')"


def read_lines(path: Path, newline: str, problems: ProblemList, watch: Watch) -> Iterator[tuple[int, str]]:
    """(Number from 1, text with its line end) of each sound line; the others are problems.

    UTF-8, with or without a byte order mark, or UTF-16 with one. `newline`: see `open`.
    """
    utf_16 = _starts_with(path, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    size_bytes = path.stat().st_size
    # Bytes that are no UTF-8 become surrogates, so that the line they are in can be told.
    encoding, errors = ("utf-16", "surrogatepass") if utf_16 else ("utf-8-sig", "surrogateescape")
    with path.open("rb") as raw, io.TextIOWrapper(raw, encoding, errors, newline) as file:
        number = 0
        try:
            while text := file.readline(MAX_CHARACTERS + 1):
                number += 1
                if number % _TOLD_EVERY == 0:
                    watch(raw.tell() / size_bytes)
                if len(text) > MAX_CHARACTERS:
                    while text and text[-1] not in "\r\n":
                        text = file.readline(MAX_CHARACTERS)
                    problems.add(
                        number,
                        Wrong("", f"is longer than {MAX_CHARACTERS} characters", "split it into shorter conversations"),
                    )
                elif (broken := first_surrogate(text)) is not None:
                    raise problems.stop(number, _not_text(text, broken))
                elif "\0" in text:
                    column = f"character {text.index(chr(0)) + 1}"
                    problems.add(
                        number, Wrong(column, "is NUL, which no text holds", "remove it, or " + _SAVE_AS_UTF_8)
                    )
                else:
                    yield number, text
        except UnicodeDecodeError:
            raise problems.stop(number + 1, Wrong("", "ends in the middle of a character", _SAVE_AS_UTF_8)) from None
    watch(1.0)


def _not_text(text: str, index: int) -> Wrong:
    column = f"character {index + 1}"
    try:
        text.encode("utf-8", "surrogateescape").decode("gb18030")
    except UnicodeError:
        return Wrong(column, "is not UTF-8", _SAVE_AS_UTF_8)
    return Wrong(column, "is not UTF-8 (it could be GB18030, as Excel's plain 'CSV' is in Chinese)", _SAVE_AS_UTF_8)


def _starts_with(path: Path, *marks: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith(marks)
