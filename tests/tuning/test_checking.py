"""What a file would take to be tuned on."""

import json
from pathlib import Path

import pytest

from app.tuning.data.checking import check_data
from app.tuning.data.conversations import Turn
from app.tuning.data.samples import samples_of
from tests.tuning import templates


def write(path: Path, answers: list[str]) -> Path:
    lines = [
        {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]} for answer in answers
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def test_tokens_are_counted_by_a_tokenizer(tmp_path: Path):
    tokenizer = templates.tokenizer(templates.CHATML)
    answers = ["a", "b" * 100, "c" * 10]
    report = check_data(write(tmp_path / "a.jsonl", answers), tokenizer, 60)
    samples = list(samples_of([(Turn("user", "?"), Turn("assistant", answer)) for answer in answers], tokenizer))
    lengths = [sample.length for sample in samples]
    assert (report.rows, report.conversations, report.samples, report.exact) == (3, 3, 3, True)
    assert (report.longest, report.cut, report.cut_tokens) == (lengths[1], 1, lengths[1] - 60)
    assert report.tokens == sum(min(length, 60) for length in lengths)
    assert report.problems == ()


def test_rows_of_a_table_are_not_its_conversations(tmp_path: Path):
    (tmp_path / "a.csv").write_text("conversation_id,human,assistant\n1,a,b\n1,c,d\n2,e,f\n")
    report = check_data(tmp_path / "a.csv")
    assert (report.rows, report.conversations) == (3, 2)


@pytest.mark.parametrize(
    "answer", ["The capital of France is Paris, as everybody knows. " * 20, "法国的首都是巴黎。" * 60]
)
def test_without_a_tokenizer_tokens_are_estimated(answer: str, tmp_path: Path):
    report = check_data(write(tmp_path / "a.jsonl", [answer] * 10), None, 100)
    assert not report.exact
    assert 0.15 < report.longest / len(answer) < 1
    assert (report.cut, report.tokens, report.samples) == (10, 1000, 10)


def test_an_estimate_drops_what_has_nothing_left_to_learn(tmp_path: Path):
    line = {"messages": [{"role": "user", "content": "long " * 500}, {"role": "assistant", "content": "yes"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    report = check_data(tmp_path / "a.jsonl", None, 100)
    assert (report.dropped, report.samples, report.suggested_iterations) == (1, 0, (0, 0))


def test_problems_are_in_the_report(tmp_path: Path):
    report = check_data(write(tmp_path / "a.jsonl", ["a", "", "b"]), templates.tokenizer(templates.CHATML))
    assert [(problem.line, problem.column) for problem in report.problems] == [(2, "messages[1].content")]


@pytest.mark.parametrize(
    ("rows", "epochs", "iterations"),
    [(320, (4, 8), (40, 80)), (999, (4, 8), (128, 256)), (3200, (2, 4), (200, 400)), (10_000, (1, 2), (313, 626))],
)
def test_iterations_follow_from_the_rows(
    rows: int, epochs: tuple[int, int], iterations: tuple[int, int], tmp_path: Path
):
    report = check_data(write(tmp_path / "a.jsonl", ["yes"] * rows))
    assert (report.suggested_epochs, report.suggested_iterations) == (epochs, iterations)
