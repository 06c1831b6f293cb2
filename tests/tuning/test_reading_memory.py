"""Memory while files are read: it does not grow with them, whoever made them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tuning.workbooks import SHARED, TEXTS, sheet_xml, written_by_hand

MIB = 1 << 20
READ = """
import sys
from pathlib import Path
from app.tuning.data.problems import DataProblems
from app.tuning.data.reading import read_conversations
turns, said = 0, ""
try:
    for conversation in read_conversations(Path(sys.argv[1]), scratch=Path(sys.argv[1]).parent):
        turns += len(conversation)
except DataProblems as found:
    said = found.problems[0].cause
peak, = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak) * 1024, turns, said)
"""


def read(path: Path) -> tuple[int, int, str]:
    """(Peak of resident memory in bytes, turns, the first problem) of a process that reads the file."""
    done = subprocess.run([sys.executable, "-c", READ, str(path)], check=True, capture_output=True, text=True)
    peak, turns, said = done.stdout.strip("\n").split(" ", 2)
    return int(peak), int(turns), said


def write_jsonl(path: Path, rows: int, words: int = 50) -> None:
    with path.open("w") as file:
        for number in range(1, rows + 1):
            text = f"{number} " * words
            file.write(
                f'{{"conversation_id": {number}, "chat": {{"turn_1": {{"Human": "{text}", "MOSS": "{text}"}}}}}}\n'
            )


def write_csv(path: Path, rows: int, words: int = 50) -> None:
    """In no order: each conversation has two rows that are far apart."""
    with path.open("w") as file:
        file.write("conversation_id,human,assistant\n")
        for number in range(rows):
            text = f"{number} " * words
            file.write(f"{number % (rows // 2) * 7919 % rows + 1},{text},{text}\n")


def write_xlsx(path: Path, rows: int) -> None:
    """With texts that are all different, in the table that cells share."""
    texts = "".join(f"<si><t>{f'{number} ' * 50}</t></si>" for number in range(2 * rows))
    cells = "".join(
        f'<row><c><v>{number + 1}</v></c><c t="s"><v>{2 * number + 3}</v></c><c t="s"><v>{2 * number + 4}</v></c></row>'
        for number in range(rows)
    )
    path.write_bytes(written_by_hand(sheet_xml(cells), {TEXTS: SHARED.replace("</sst>", texts + "</sst>")}))


WRITE: dict[str, tuple[Callable[[Path, int], None], int]] = {
    "a.jsonl": (write_jsonl, 20_000),
    "a.csv": (write_csv, 25_000),  # more than is sorted at once
    "a.xlsx": (write_xlsx, 8_000),
}


@pytest.mark.parametrize("name", WRITE)
def test_memory_does_not_grow_with_the_rows(name: str, tmp_path: Path):
    write, rows = WRITE[name]
    peaks = []
    for times in (1, 5):
        write(tmp_path / name, rows * times)
        peak, turns, said = read(tmp_path / name)
        assert (turns, said) == (2 * rows * times, "")
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 10 * MIB, f"{peaks[0] / MIB:.0f} to {peaks[1] / MIB:.0f} MiB"


def test_a_line_of_a_gigabyte_is_refused_in_little_memory(tmp_path: Path):
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.truncate(1 << 30)
    peak, _, said = read(tmp_path / "a.jsonl")
    assert said == "is longer than 4194304 characters"
    assert peak < 150 * MIB


HOSTILE = {
    "text": (
        "<si><t>" + "a" * (80 * MIB),
        "the workbook expands to far more than a table of this size would, as a zip bomb does",
    ),
    "attributes": ("<si " + " ".join(f"a{n}=''" for n in range(4 * MIB)), "the workbook has a tag without end"),
    "tag": ("<si " + " " * (80 * MIB), "the workbook has a tag without end"),
    "comment": ("<!-- " + "- " * (40 * MIB), "the workbook has a tag without end"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_workbook_that_expands_takes_little_memory(name: str, tmp_path: Path):
    piece, expected = HOSTILE[name]
    (tmp_path / "a.xlsx").write_bytes(written_by_hand(sheet_xml(""), {TEXTS: "<sst>" + piece}, level=1))
    peak, _, said = read(tmp_path / "a.xlsx")
    assert said == expected
    assert peak < 100 * MIB


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "write"), [("a.jsonl", write_jsonl), ("a.csv", write_csv)])
def test_ten_million_rows(name: str, write: Callable[..., None], tmp_path: Path):
    write(tmp_path / name, 10_000_000, words=4)
    peak, turns, said = read(tmp_path / name)
    (tmp_path / name).unlink()
    assert (turns, said) == (20_000_000, "")
    assert peak < 300 * MIB
