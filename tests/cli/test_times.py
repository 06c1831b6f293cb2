"""Times as people type them."""

from datetime import UTC, datetime

import pytest
import typer

from app.cli.times import ago, ahead, seconds
from tests.cli.runner import options_of_commands

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(("text", "meant"), [("90s", 90), ("30m", 1800), ("4h", 14_400), ("7d", 604_800)])
def test_spans(text: str, meant: int) -> None:
    assert seconds(text) == meant


def test_moments() -> None:
    assert ahead("1d", NOW) == "2026-02-01T12:00:00+00:00"
    assert ago("2h", NOW) == "2026-01-31T10:00:00+00:00"
    for moment in (ahead, ago):
        assert moment("2026-01-31T20:00:00+08:00", NOW) == "2026-01-31T12:00:00+00:00"


@pytest.mark.parametrize("text", ["", "4", "h", "0s", "-1h", "1.5h", "1w", "4 h", "soon", "2026-13-01", "999999999d"])
def test_what_is_no_time(text: str) -> None:
    for reads in (ahead, ago):
        with pytest.raises(typer.BadParameter):
            reads(text)
    if text != "999999999d":
        with pytest.raises(typer.BadParameter):
            seconds(text)


@pytest.mark.parametrize("option", ["--since", "--until"])
def test_windows_are_explained_in_one_way(option: str) -> None:
    assert len({options[option].help for _, options in options_of_commands() if option in options}) == 1
