"""Files that cannot be tuned on: each is refused for what it is, where it is, with what to do about it."""

import re
from pathlib import Path
from types import ModuleType

import pytest

from app.tuning.data import xlsx_package, xlsx_texts
from app.tuning.data.problems import PROBLEM_LIMIT, DataProblems
from app.tuning.data.reading import read_conversations
from tests.tuning.bad_files import ANSWER, ASK, BAD, chat_line, jsonl, moss_line
from tests.tuning.workbooks import write_workbook


def problems_of(path: Path) -> DataProblems:
    with pytest.raises(DataProblems) as found:
        list(read_conversations(path))
    return found.value


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_the_place_and_the_cause(name: str, tmp_path: Path):
    bad = BAD[name]
    path = tmp_path / bad.name
    path.write_bytes(bad.content if isinstance(bad.content, bytes) else bad.content())
    problem = problems_of(path).problems[0]
    assert (problem.line, problem.column, problem.cause) == (bad.line, bad.column, bad.cause)
    assert problem.unit == ("row" if bad.name == "a.xlsx" and bad.line else problem.unit)
    assert problem.fix
    assert str(tmp_path) not in str(problem)


def test_there_are_enough_bad_files():
    assert len(BAD) >= 40


def test_a_folder_is_refused(tmp_path: Path):
    assert "this is a folder, and a file is needed" in str(problems_of(tmp_path))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path):
    assert "there is no such file" in str(problems_of(tmp_path / "a.csv"))


def test_twenty_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(jsonl(*[moss_line(-1)] * 50))
    problems = problems_of(tmp_path / "a.jsonl").problems
    assert [problem.line for problem in problems] == list(range(1, PROBLEM_LIMIT + 1))


def test_sound_lines_between_bad_ones_are_passed_over(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(jsonl(moss_line(), moss_line(0), moss_line(), b"{", moss_line()))
    assert [problem.line for problem in problems_of(tmp_path / "a.jsonl").problems] == [2, 4]


@pytest.mark.parametrize(
    ("module", "bound", "cause"),
    [
        (xlsx_texts, "MAX_TEXTS", "the workbook has more texts than a sheet has cells"),
        (xlsx_package, "MAX_ELEMENTS", "the workbook has far more elements than a table"),
        (
            xlsx_package,
            "MAX_EXPANDED_BYTES",
            "the workbook expands to far more than a table of this size would, as a zip bomb does",
        ),
    ],
)
def test_a_workbook_is_bounded(
    module: ModuleType, bound: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, bound, 10)
    write_workbook(tmp_path / "a.xlsx", [(number, f"a {number}", f"b {number}") for number in range(1, 9)])
    assert problems_of(tmp_path / "a.xlsx").problems[0].cause == cause


def test_a_problem_is_told_in_one_line(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(jsonl(chat_line(ASK, ("assistant", ""))))
    assert str(problems_of(tmp_path / "a.jsonl")) == (
        "line 1, messages[1].content: is empty; fill it in, or remove the conversation"
    )


def test_no_problem_repeats_the_data(tmp_path: Path):
    secret = "hunter2 is my password"
    lines = [
        {secret: 1}, {"conversation_id": secret, "chat": {}}, moss_line(1, **{secret: {}}), {"messages": secret},
        chat_line((secret, secret)), chat_line(ASK, ANSWER, ("tool", [secret])),
        f'{{"{secret}": 1, "{secret}": 2}}'.encode(), f'{{"messages": {secret}}}'.encode(),
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_bytes(jsonl(*lines))
    found = problems_of(tmp_path / "a.jsonl")
    assert len(found.problems) == len(lines)
    assert not re.search("hunter2|password", str(found))
