"""An endpoint's name means the one that somebody may mean, while it is deleted and made anew."""

import pytest

from tests.cli.real_platform import Here
from tests.cli.runner import done, modelunit, told


@pytest.fixture
def draining(here: Here) -> str:
    """One named demo whose units do not come to their end."""
    made: str = told("endpoints", "create", "demo", "--model", "m-1")["id"]
    here.cluster.remove = lambda *_: None  # type: ignore[method-assign]
    done("endpoints", "delete", "demo", "--confirm", "DELETE")
    return made


def test_one_that_drains_still_can_be_restored(draining: str) -> None:
    restored = told("endpoints", "restore", "demo")
    assert (restored["id"], restored["state"]) == (draining, "healthy")


def test_one_that_drains_is_meant_where_it_is_the_only_one(draining: str) -> None:
    assert told("endpoints", "get", "demo")["id"] == draining
    assert told("endpoints", "get", "demo", "--deleted")["id"] == draining
    assert modelunit("endpoints", "restore", "other").stderr == "there is no deleted endpoint named other\n"


def test_its_successor_is_meant_where_there_is_one(draining: str) -> None:
    successor = told("endpoints", "create", "demo", "--model", "m-1")["id"]
    assert successor != draining
    assert told("endpoints", "get", "demo")["id"] == successor
    assert told("endpoints", "stop", "demo")["id"] == successor
    assert told("endpoints", "get", "demo", "--deleted")["id"] == draining
    done("endpoints", "delete", "demo", "--confirm", "DELETE")
    result = modelunit("endpoints", "restore", "demo")
    assert (result.exit_code, draining in result.stderr, successor in result.stderr) == (1, True, True)
