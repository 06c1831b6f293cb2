"""Rows of `conversation_id`, `human`, `assistant`, and how they become conversations."""

import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import IO, NamedTuple

from app.tuning.data.conversations import (
    Conversation,
    Turn,
    check_length,
    checked_id,
    checked_text,
    shown,
)
from app.tuning.data.problems import ProblemList, Wrong

COLUMNS = ("conversation_id", "human", "assistant")

SORT_CHARACTERS = 16 << 20
"""So much text is sorted in memory at once."""
_MAX_PARTS = 128
"""Files that are merged at once; each is open."""
_ROW_CHARACTERS = 200
"""What a row takes in memory beside its text, as characters."""


@dataclass(frozen=True, slots=True)
class NotText:
    """A cell of a sheet that holds something else."""

    cell: str
    cause: str
    fix: str


Cell = str | int | NotText
Rows = Iterator[tuple[int, Sequence[Cell]]]


_BY_CONVERSATION = attrgetter("conversation")


class _Said(NamedTuple):
    """One row."""

    conversation: int
    line: int
    human: str
    assistant: str


def read_table(open_rows: Callable[[], Rows], problems: ProblemList, scratch: Path | None) -> Iterator[Conversation]:
    """The conversations of a table, in the order of their numbers, each with its rows in the file's order.

    `open_rows` begins the table anew: it is read once to check it, and once to use it. A file whose numbers never fall
    is streamed; any other is sorted in `scratch`, which needs room for the texts. Memory does not grow with the rows.
    """
    last, ordered, rows = 0, True, 0
    for said in _checked(open_rows(), problems):
        ordered = ordered and last <= said.conversation
        last, rows = said.conversation, rows + 1
    if not rows and not problems:
        raise problems.stop(0, Wrong("", "there are no rows", "write one row for each answer of the assistant"))
    problems.raise_any()
    said_in_order = _checked(open_rows(), problems)
    if not ordered:
        said_in_order = _sorted(said_in_order, scratch)
    for _, group in groupby(said_in_order, key=_BY_CONVERSATION):
        yield _conversation(group, problems)


def _checked(rows: Rows, problems: ProblemList) -> Iterator[_Said]:
    order: tuple[int, ...] | None = None
    for line, cells in rows:
        if all(cell == "" for cell in cells):
            continue
        if order is None:
            try:
                order = _header(cells)
            except Wrong as wrong:
                raise problems.stop(line, wrong) from None
            continue
        try:
            said = _said(line, cells, order)
        except Wrong as wrong:
            problems.add(line, wrong)
        else:
            yield said


def _header(cells: Sequence[Cell]) -> tuple[int, ...]:
    """Where the three columns are. Raises Wrong."""
    names = [cell if isinstance(cell, str) else "" for cell in cells]
    fix = f"name the three columns {', '.join(COLUMNS)} in the first row"
    for mark, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and mark in names[0]:
            raise Wrong("", f"the columns are separated by {word}", "separate them by commas")
    for name in COLUMNS:
        if name not in names:
            raise Wrong(name, "is missing in the first row", fix)
    if len(names) > len(COLUMNS):
        more = next(name for i, name in enumerate(names) if name not in COLUMNS or name in names[:i])
        raise Wrong(shown(more), "is a column too many", fix)
    return tuple(map(names.index, COLUMNS))


def _said(line: int, cells: Sequence[Cell], order: tuple[int, ...]) -> _Said:
    if len(cells) != len(COLUMNS):
        raise Wrong(
            "",
            f"has {len(cells)} columns, not {len(COLUMNS)}",
            "leave nothing beside the three columns, and put texts with commas in quotes",
        )
    conversation, human, assistant = (cells[index] for index in order)
    return _Said(_id(conversation), line, _text(human, "human"), _text(assistant, "assistant"))


def _id(cell: Cell) -> int:
    column = COLUMNS[0]
    if isinstance(cell, NotText):
        raise _not_text(cell, column)
    if cell == "":
        raise Wrong(column, "is empty", "repeat the number in every row of a conversation; unmerge merged cells")
    if isinstance(cell, str):
        if not (cell.isascii() and cell.isdigit() and len(cell) < 20):
            raise Wrong(column, "is not a positive whole number", "number the conversations 1, 2, 3, ...")
        cell = int(cell)
    return checked_id(cell, column)


def _text(cell: Cell, column: str) -> str:
    if isinstance(cell, NotText):
        raise _not_text(cell, column)
    if isinstance(cell, int):
        raise Wrong(column, "is a number, not text", "format the column as text and enter it again")
    return checked_text(cell, column)


def _not_text(cell: NotText, column: str) -> Wrong:
    return Wrong(f"{column} ({cell.cell})", cell.cause, cell.fix)


def _conversation(rows: Iterable[_Said], problems: ProblemList) -> Conversation:
    turns: list[Turn] = []
    characters = 0
    for said in rows:
        turns += (Turn("user", said.human, said.line), Turn("assistant", said.assistant, said.line))
        characters += len(said.human) + len(said.assistant)
        try:
            check_length(len(turns), characters, COLUMNS[0])
        except Wrong as wrong:
            raise problems.stop(said.line, wrong) from None
    return tuple(turns)


def _sorted(rows: Iterable[_Said], scratch: Path | None) -> Iterator[_Said]:
    """By conversation, each in the file's order, by way of sorted parts in files that vanish with the process."""
    parts: list[IO[bytes]] = []
    try:
        for held in _portions(rows):
            if len(parts) == _MAX_PARTS:
                whole = _put_away(_merged(parts), scratch)
                for part in parts:
                    part.close()
                parts = [whole]
            held.sort(key=_BY_CONVERSATION)
            parts.append(_put_away(held, scratch))
            held.clear()  # before the next portion is read
        yield from _merged(parts)
    finally:
        for part in parts:
            part.close()


def _portions(rows: Iterable[_Said]) -> Iterator[list[_Said]]:
    held: list[_Said] = []
    characters = 0
    for said in rows:
        held.append(said)
        characters += len(said.human) + len(said.assistant) + _ROW_CHARACTERS
        if characters >= SORT_CHARACTERS:
            yield held
            held, characters = [], 0
    yield held


def _put_away(rows: Iterable[_Said], scratch: Path | None) -> IO[bytes]:
    file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 (whoever asked closes it)
    for said in rows:
        pickle.dump(tuple(said), file)
    file.seek(0)
    return file


def _merged(parts: list[IO[bytes]]) -> Iterator[_Said]:
    return merge(*map(_unpickled, parts), key=_BY_CONVERSATION)  # of equal ones the earlier part's come first


def _unpickled(file: IO[bytes]) -> Iterator[_Said]:
    while True:
        try:
            yield _Said(*pickle.load(file))
        except EOFError:
            return
