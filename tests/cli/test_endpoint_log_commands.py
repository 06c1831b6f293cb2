"""`modelunit endpoints logs`: what units wrote, also as they write it, and why there is nothing."""

from datetime import UTC, datetime

import pytest

from app.core.log_lines import write
from app.store.layout import LogObject, log_hour
from app.store.objects import open_store
from tests.cli.real_platform import Here
from tests.cli.runner import done, interrupt, modelunit, started, told


@pytest.fixture
def endpoint_id(here: Here) -> str:
    made: str = told("endpoints", "create", "demo", "--model", "m-1")["id"]
    return made


def ship(here: Here, endpoint_id: str, *lines: str, number: int = 0) -> None:
    """What a unit has brought to the object store."""
    now = datetime.now(UTC)
    text = "".join(f"{write(line, now)}\n" for line in lines)
    open_store(here.settings).write(LogObject(endpoint_id, log_hour(now), "u1", number).name, text.encode())


def test_what_units_wrote(here: Here, endpoint_id: str) -> None:
    ship(here, endpoint_id, "loading", "\x1b[31mready\x07", "serving")
    for arguments in ([], ["--all"], ["--limit", "3"]):
        lines = done("endpoints", "logs", "demo", *arguments).splitlines()
        assert [line.split(" ", 2)[1:] for line in lines] == [["u1", "loading"], ["u1", "[31mready"], ["u1", "serving"]]
    assert [line["message"] for line in told("endpoints", "logs", "demo", "--limit", "1")] == ["serving"]
    assert done("endpoints", "logs", "demo", "--search", "LOAD").count("\n") == 1


@pytest.mark.parametrize("everything", [[], ["--all"]])
def test_why_there_is_no_line_is_said(here: Here, endpoint_id: str, everything: list[str]) -> None:
    def said(*arguments: str) -> str:
        result = modelunit("endpoints", "logs", "demo", *everything, *arguments)
        assert (result.exit_code, result.stdout) == (0, "")
        return result.stderr

    assert said() == "its units have written nothing yet\n"
    assert said("--search", "x") == "its units have written nothing yet\n"
    ship(here, endpoint_id, "loading")
    assert said("--search", "nothing") == "no line contains 'nothing'\n"
    assert said("--until", "1h") == "its units wrote nothing in that time\n"
    assert said("--until", "1h", "--search", "load") == "its units wrote nothing in that time\n"
    assert told("endpoints", "logs", "demo", "--search", "nothing", *everything) == []


def test_lines_that_come_are_shown_as_they_come(here: Here, endpoint_id: str) -> None:
    ship(here, endpoint_id, "loading", "ready")
    process = started("endpoints", "logs", "demo", "--follow", "--search", "ad")
    assert process.stdout
    assert [process.stdout.readline().split()[-1] for _ in range(2)] == ["loading", "ready"]
    ship(here, endpoint_id, "serving", "adding", number=1)
    assert process.stdout.readline().split()[-1] == "adding"
    assert interrupt(process) == (1, "", "interrupted\n")
