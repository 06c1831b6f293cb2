"""Data files that can be tuned on: every format gives the same conversations."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.tuning.data import tables
from app.tuning.data.conversations import Conversation, Turn
from app.tuning.data.reading import read_conversations
from tests.tuning.workbooks import MAIN, SHARED, TEXTS, sheet_xml, write_workbook, written_by_hand

ROWS = [(1, "hi", "hello"), (2, "2+2?", '4,\nof "course"'), (1, "you?", "Danke 😀 谢谢"), (3, "_x0041_", " a ")]
CONVERSATIONS = [
    [("user", "hi"), ("assistant", "hello"), ("user", "you?"), ("assistant", "Danke 😀 谢谢")],
    [("user", "2+2?"), ("assistant", '4,\nof "course"')],
    [("user", "_x0041_"), ("assistant", " a ")],
]


def turns(conversations: list[Conversation]) -> list[list[tuple[str, str]]]:
    return [[(turn.role, turn.content) for turn in conversation] for conversation in conversations]


def csv_of(rows: list[tuple[int, str, str]], columns: tuple[int, int, int] = (0, 1, 2), line_end: str = "\n") -> str:
    quoted = [("conversation_id", "human", "assistant"), *rows]
    cells = [['"' + str(row[column]).replace('"', '""') + '"' for column in columns] for row in quoted]
    return "".join(",".join(row) + line_end for row in cells)


def moss(path: Path) -> None:
    lines = [
        {"conversation_id": number, "chat": {
            f"turn_{turn // 2 + 1}": {"Human": said[turn][1], "MOSS": said[turn + 1][1]}
            for turn in range(0, len(said), 2)
        }}
        for number, said in enumerate(CONVERSATIONS, 1)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


def messages(path: Path) -> None:
    lines = [{"messages": [{"content": text, "role": role} for role, text in said]} for said in CONVERSATIONS]
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) + "\r\n" for line in lines), encoding="utf-8-sig")


FORMS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "moss": ("a.jsonl", moss),
    "messages": ("a.jsonl", messages),
    "csv": ("a.csv", lambda path: path.write_text(csv_of(ROWS), encoding="utf-8")),
    "csv-as-excel-writes-it": (
        "A.CSV", lambda path: path.write_bytes(csv_of(ROWS, line_end="\r\n").encode("utf-8-sig")),
    ),
    "csv-utf-16": ("a.csv", lambda path: path.write_bytes(csv_of(ROWS).encode("utf-16"))),
    "csv-other-order": ("a.csv", lambda path: path.write_text(csv_of(ROWS, (2, 0, 1)), encoding="utf-8")),
    "csv-blank-rows": ("a.csv", lambda path: path.write_text(csv_of(ROWS) + ",,\n\n", encoding="utf-8")),
    "xlsx": ("a.xlsx", lambda path: write_workbook(path, ROWS)),
    "xlsx-ids-as-text": ("a.xlsx", lambda path: write_workbook(path, [(str(row[0]), *row[1:]) for row in ROWS])),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_conversations(form: str, tmp_path: Path):
    name, write = FORMS[form]
    write(tmp_path / name)
    assert turns(list(read_conversations(tmp_path / name))) == CONVERSATIONS


@pytest.mark.parametrize("form", ["moss", "messages", "csv", "xlsx"])
def test_a_format_that_is_named_needs_no_suffix(form: Any, tmp_path: Path):
    FORMS[form][1](tmp_path / "data")
    assert turns(list(read_conversations(tmp_path / "data", form))) == CONVERSATIONS


def test_system_messages_and_texts_of_tools_are_kept(tmp_path: Path):
    said = [("system", "be kind"), ("user", "weather?"), ("assistant", "look()"), ("tool", "sun"), ("assistant", "sun")]
    line = {"messages": [{"role": role, "content": text} for role, text in said]}
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    assert turns(list(read_conversations(tmp_path / "a.jsonl"))) == [said]


def test_turns_know_the_line_they_come_from(tmp_path: Path):
    (tmp_path / "a.csv").write_text('conversation_id,human,assistant\n2,"a\nb",c\n1,d,e\n2,f,g\n')
    lines = [[turn.line for turn in conversation] for conversation in read_conversations(tmp_path / "a.csv")]
    assert lines == [[4, 4], [2, 2, 5, 5]]


def test_rich_texts_phonetic_notes_and_missing_references_of_workbooks(tmp_path: Path):
    rich = "<r><t>He</t></r><r><rPr/><t>llo </t></r><rPh><t>noise</t></rPh>"
    texts = SHARED.replace("</sst>", f"<si>{rich}</si></sst>")
    row = "<row><c><v>1E0</v></c><c t='s'><v>3</v></c><c t='inlineStr'><is><t>a_x000D_b</t></is></c></row>"
    (tmp_path / "a.xlsx").write_bytes(written_by_hand(sheet_xml(row), {TEXTS: texts}))
    assert turns(list(read_conversations(tmp_path / "a.xlsx"))) == [[("user", "Hello "), ("assistant", "a\rb")]]


def test_workbooks_with_prefixed_names_are_read(tmp_path: Path):
    sheet = sheet_xml(
        "<row r='2'><c r='A2'><v>7</v></c><c r='B2' t='str'><v>a</v></c><c r='C2' t='str'><v>b</v></c></row>"
    )
    prefixed = sheet.replace("</", "<!/").replace("<", "<x:").replace("<x:!/", "</x:").replace("xmlns=", "xmlns:x=")
    assert f'<x:worksheet xmlns:x="{MAIN}">' in prefixed
    (tmp_path / "a.xlsx").write_bytes(written_by_hand(prefixed))
    assert turns(list(read_conversations(tmp_path / "a.xlsx"))) == [[("user", "a"), ("assistant", "b")]]


def test_empty_sheets_beside_the_data_do_not_matter(tmp_path: Path):
    write_workbook(tmp_path / "a.xlsx", ROWS, lambda book, sheet: book.add_worksheet())
    assert turns(list(read_conversations(tmp_path / "a.xlsx"))) == CONVERSATIONS


@pytest.mark.parametrize("characters", [20_000, 1_000])  # a few parts, and more than are merged at once
def test_a_table_that_does_not_fit_in_memory_is_sorted_in_parts(
    characters: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn = random.Random(7)
    rows = [(drawn.randint(1, 40), f"question {number}", f"answer {number}") for number in range(1000)]
    (tmp_path / "a.csv").write_text(csv_of(rows))
    at_once = list(read_conversations(tmp_path / "a.csv"))
    monkeypatch.setattr(tables, "SORT_CHARACTERS", characters)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    in_parts = list(read_conversations(tmp_path / "a.csv", scratch=scratch))
    assert in_parts == at_once
    expected: dict[int, list[Turn]] = {}
    for number, human, assistant in rows:
        expected.setdefault(number, []).extend((Turn("user", human), Turn("assistant", assistant)))
    assert in_parts == [tuple(expected[number]) for number in sorted(expected)]
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("form", ["moss", "csv", "xlsx"])
def test_progress_reaches_the_whole_file(form: str, tmp_path: Path):
    name, write = FORMS[form]
    write(tmp_path / name)
    heard: list[float] = []
    list(read_conversations(tmp_path / name, watch=heard.append))
    assert heard[-1] == 1.0
    assert all(0 <= done <= 1 for done in heard)


@pytest.mark.timeout(30)  # minutes where the time grows with the square
def test_a_cell_of_very_many_lines_takes_no_more_time_than_its_length(tmp_path: Path) -> None:
    said = "a\n" * 400_000 + "b"
    cells = f'<c r="A2"><v>1</v></c><c r="B2" t="str"><v>hi</v></c><c r="C2" t="str"><v>{said}</v></c>'
    file = tmp_path / "a.xlsx"
    file.write_bytes(written_by_hand(sheet_xml(f'<row r="2">{cells}</row>')))
    assert turns(list(read_conversations(file))) == [[("user", "hi"), ("assistant", said)]]
