"""Data files for tuning: what format a file has, and its conversations one by one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from app.tuning.data import jsonl
from app.tuning.data.conversations import Conversation
from app.tuning.data.csv_rows import csv_rows
from app.tuning.data.lines import Watch
from app.tuning.data.problems import ProblemList, Wrong
from app.tuning.data.tables import Rows, read_table
from app.tuning.data.xlsx_rows import open_workbook

Format = Literal["auto", "moss", "messages", "csv", "xlsx"]
SUFFIXES = (".jsonl", ".xlsx", ".csv")

_CHOOSE = f"choose one file that ends in {', '.join(SUFFIXES)}"
_MAGIC = (
    # what a file begins with, what that is, what to do
    (b"\xd0\xcf\x11\xe0", "an old .xls or a workbook with a password", "save it as .xlsx without a password"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it first"),
    (b"PAR1", "a Parquet file", "write it as .jsonl"),
    (b"%PDF", "a PDF file", _CHOOSE),
)


def _unwatched(done: float) -> None: ...


def read_conversations(
    path: Path, format: Format = "auto", *, scratch: Path | None = None, watch: Watch = _unwatched
) -> Iterator[Conversation]:
    """The conversations of a file, streamed: memory does not grow with the file.

    "auto" goes by the name and the content. `scratch` is a folder for temporary files, of which none outlives the
    process; None means the system's. `watch` hears how much of the file has been read. Raises DataProblems, at the
    latest when the file ends; once something is wrong no further conversations come.
    """
    kind = _format(path, format)
    problems = ProblemList("row" if kind == "xlsx" else "line")
    if kind == "csv":
        yield from read_table(lambda: csv_rows(path, problems, watch), problems, scratch)
    elif kind == "xlsx":
        try:
            with open_workbook(path, scratch) as workbook:

                def rows() -> Rows:
                    return workbook.rows(problems, watch)

                yield from read_table(rows, problems, scratch)
        except Wrong as wrong:
            raise problems.stop(0, wrong) from None
    else:
        parse = {"moss": jsonl.moss, "messages": jsonl.messages}.get(kind)
        any_line = False
        for conversation in jsonl.read_jsonl(path, parse, problems, watch):
            any_line = True
            yield conversation
        if not any_line and not problems:
            raise problems.stop(0, Wrong("", "there are no lines", "write one conversation on each line"))
    problems.raise_any()


def _format(path: Path, wanted: Format) -> str:
    """ "csv", "xlsx", "moss", "messages", or "jsonl" where the first line decides. Raises DataProblems."""
    try:
        return _judged(path, wanted)
    except Wrong as wrong:
        raise ProblemList().stop(0, wrong) from None


def _judged(path: Path, wanted: Format) -> str:
    if path.is_dir():
        raise Wrong("", "this is a folder, and a file is needed", _CHOOSE)
    if not path.is_file():
        raise Wrong("", "there is no such file", _CHOOSE)
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise Wrong("", "the file is empty", "write conversations into it")
    suffix = path.suffix.lower()
    if wanted == "auto" and suffix not in SUFFIXES:
        raise Wrong("", f"the name ends in none of {', '.join(SUFFIXES)}", "write one of these formats")
    for magic, what, fix in _MAGIC:
        if head.startswith(magic):
            raise Wrong("", f"this is {what}", fix)
    expected = {".xlsx": "xlsx", ".csv": "csv", ".jsonl": "jsonl"}[suffix] if wanted == "auto" else wanted
    zipped = head.startswith((b"PK\3\4", b"PK\5\6"))
    if expected == "xlsx" and not zipped:
        raise Wrong(
            "", "this is no .xlsx workbook, whatever its name says", "save it as .xlsx, or name it by what it is"
        )
    if expected != "xlsx" and zipped:
        raise Wrong("", "this is a zip archive or a workbook", "name a workbook .xlsx, and unpack anything else")
    if expected not in ("csv", "xlsx") and head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        raise Wrong("", "this is one JSON list", "write each of its objects on a line of its own, without the brackets")
    return expected
