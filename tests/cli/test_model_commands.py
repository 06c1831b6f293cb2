"""`modelunit models` and `jobs` against a platform that is played."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.cli.played_machine import Answers, Machine
from tests.cli.runner import modelunit

MODEL = {
    "id": "m-1", "name": "mine", "state": "healthy", "reason": "", "findings": [],
    "supports": {"tune": [], "compress": ["AWQ-W4A16"], "deploy": True, "why_not": {"tune": "it is a test"}},
    "versions": [{"precision": "BF16", "state": "healthy"}],
    "jobs": [{"id": "job-1", "type": "validate", "state": "completed"}],
    "endpoints": [{"id": "ep-1", "name": "demo", "state": "healthy"}],
}  # fmt: skip
LINES = ["copying: 1 of 2 MiB", "", "the end"]


class Models(Answers):
    """Has one model and one job with a log."""

    posted: list[Any] = []
    lines: list[str] = LINES

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/platform/v1/models/mine":
            self._answer(200, MODEL)
        elif url.path == "/platform/v1/jobs/job-1/logs":
            query = parse_qs(url.query)
            if "follow" in query or "download" in query:
                wanted = query.get("search", [""])[0]
                self._text("".join(f"{line}\n" for line in self.lines if wanted in line))
            else:
                data = [{"id": str(number), "message": line} for number, line in enumerate(self.lines, 1)]
                self._answer(200, {"data": data, "next_page_token": None, "note": "" if data else "It waits."})
        elif url.path.startswith("/platform/v1/jobs/"):
            self._answer(404, {"error": {"message": "There is no such job."}})
        else:
            super().do_GET()

    def do_POST(self) -> None:
        self.posted.append(self._body())
        self._answer(202, MODEL)

    def _text(self, text: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/plain; charset=utf-8")
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture(autouse=True)
def models(machine: Machine, platform: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.RequestHandlerClass = Models
    monkeypatch.setattr(Models, "posted", [])


def test_a_folder_here_is_named_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["models", "create", "mine", "--base-model", "Qwen3-8B", "--no-wait", "--source", "模型 100%/a b"]
    assert modelunit(*arguments).exit_code == 0
    assert Models.posted[0]["source"] == {"uri": f"file://{tmp_path.resolve()}/模型 100%/a b"}


def test_an_address_is_left_as_it_is() -> None:
    modelunit("models", "create", "mine", "--base-model", "Qwen3-8B", "--no-wait", "--source", "s3://bucket/模型")
    assert Models.posted[0]["source"] == {"uri": "s3://bucket/模型"}


def test_the_page_of_a_model_is_readable() -> None:
    shown = modelunit("models", "get", "mine").stdout
    for line in (
        "supports   no tune: it is a test; compress: AWQ-W4A16; deploy",
        "versions   BF16 healthy",
        "jobs       job-1 (validate) completed",
        "endpoints  ep-1 (demo) healthy",
    ):
        assert line in shown
    assert json.loads(modelunit("models", "get", "mine", "--json").stdout) == MODEL


def test_a_job_s_log() -> None:
    result = modelunit("jobs", "logs", "job-1")
    assert (result.exit_code, result.stdout.splitlines(), result.stderr) == (0, LINES, "")
    assert modelunit("jobs", "logs", "job-1", "--search", "end").stdout == "the end\n"
    assert modelunit("jobs", "logs", "job-1", "--follow").stdout.splitlines() == [line for line in LINES if line]


def test_why_a_log_has_no_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert modelunit("jobs", "logs", "job-1", "--search", "nothing").stderr == "no line contains 'nothing'\n"
    monkeypatch.setattr(Models, "lines", [])
    assert modelunit("jobs", "logs", "job-1").stderr == "It waits.\n"


def test_no_such_job() -> None:
    result = modelunit("jobs", "logs", "job-2", "-f")
    assert (result.exit_code, result.stderr) == (1, "There is no such job.\n")
