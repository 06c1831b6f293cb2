"""`modelunit data check`: what a person is told of a file, with or without a platform."""

import json
from pathlib import Path

import pytest

from app.store.layout import publish_folder
from app.store.objects import open_store
from tests.cli.real_platform import Here
from tests.cli.runner import done, modelunit, told
from tests.tuning import templates
from tests.tuning.workbooks import write_workbook

ROWS = [(1, "hi", "hello"), (1, "2+2?", "4"), (2, "bye", "see you")]


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODELUNIT_HOME", str(tmp_path / "home"))


@pytest.fixture
def workbook(tmp_path: Path) -> Path:
    return write_workbook(tmp_path / "a.xlsx", ROWS)


@pytest.mark.usefixtures("nowhere")
def test_a_sound_file(workbook: Path):
    told = done("data", "check", str(workbook))
    assert "rows           3\nconversations  2\n" in told
    assert "4 to 8 (4 to 8 epochs of 1)" in told
    assert "Tokens are estimated" in told
    assert "2,000 rows or more are advised" in told
    assert not (workbook.parent / "home").exists()


@pytest.mark.usefixtures("nowhere")
def test_a_tokenizer_counts_exactly(workbook: Path, tmp_path: Path):
    templates.tokenizer(templates.CHATML).save_pretrained(tmp_path / "tokenizer")
    report = json.loads(
        done("data", "check", str(workbook), "--tokenizer", str(tmp_path / "tokenizer"), "--max-length", "30", "--json")
    )
    assert (report["exact"], report["longest"] > 30, report["cut"], report["problems"]) == (True, True, 2, [])
    told = done("data", "check", str(workbook), "--tokenizer", str(tmp_path / "tokenizer"), "--max-length", "30")
    assert "cut            2 samples at 30 tokens" in told


@pytest.mark.usefixtures("nowhere")
def test_problems_end_the_command_with_1(tmp_path: Path):
    (tmp_path / "a.csv").write_text("conversation_id,human,assistant\n1,a,b\nx,c,d\n2,,f\n")
    result = modelunit("data", "check", str(tmp_path / "a.csv"))
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "line 3, conversation_id: is not a positive whole number; number the conversations 1, 2, 3, ...",
        "line 4, human: is empty; fill it in, or remove the conversation",
    ]
    result = modelunit("data", "check", str(tmp_path / "a.csv"), "--json")
    assert result.exit_code == 1
    assert [problem["column"] for problem in json.loads(result.stdout)["problems"]] == ["conversation_id", "human"]


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--tokenizer", "none"], 1, "the tokenizer's folder is missing"),
        (["--model", "m-1"], 1, "no platform runs here"),
        (["--model", "m-1", "--tokenizer", "x"], 2, "--tokenizer and --model"),
        (["--format", "docx"], 2, "--format"),
        (["--max-length", "0"], 2, "--max-length"),
    ],
)
def test_wrong_usage(arguments: list[str], status: int, said: str, workbook: Path):
    result = modelunit("data", "check", str(workbook), *arguments)
    assert result.exit_code == status
    assert said in result.stderr


@pytest.mark.usefixtures("nowhere")
def test_a_folder_is_no_file(tmp_path: Path):
    result = modelunit("data", "check", str(tmp_path))
    assert result.exit_code == 1
    assert "this is a folder, and a file is needed" in result.stderr


def test_a_model_of_the_platform_here_counts_exactly(here: Here, workbook: Path, tmp_path: Path):
    folder = tmp_path / "tokenizer"
    templates.tokenizer(templates.CHATML).save_pretrained(folder)
    publish_folder(open_store(here.settings), folder, model_id="m-2", name="Model-2", base_model="b", precision="BF16")
    here.platform.models.adopt()
    by_folder = told("data", "check", str(workbook), "--tokenizer", str(folder))
    assert told("data", "check", str(workbook), "--model", "Model-2") == by_folder
    assert by_folder["exact"]
    without = modelunit("data", "check", str(workbook), "--model", "m-1")
    assert without.exit_code == 1
    assert "transformers cannot load the tokenizer" in without.stderr
