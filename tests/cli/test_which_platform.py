"""Which platform commands talk to, and with whose key."""

from pathlib import Path

import pytest

from app.local.running import Running
from tests.cli.played_machine import KEY, Machine
from tests.cli.real_platform import Here
from tests.cli.runner import done, modelunit, told


def test_a_key_of_one_s_own_is_used_here_too(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    key = told("keys", "create", "--role", "inference")["key"]
    monkeypatch.setenv("MODELUNIT_API_KEY", key)
    result = modelunit("endpoints")
    assert result.exit_code == 1
    assert "role" in result.stderr, result.stderr
    (here.settings.home / "admin.key").unlink()  # nobody asks for it
    assert modelunit("endpoints").stderr == result.stderr


def test_status_shows_the_platform_that_is_named(
    platform: Running, machine: Machine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "serve.json").write_text(platform.model_copy(update={"base_url": "http://127.0.0.1:1"}).model_dump_json())
    monkeypatch.setenv("MODELUNIT_BASE_URL", platform.base_url)
    monkeypatch.setenv("MODELUNIT_API_KEY", KEY)
    assert done("status").splitlines()[0] == platform.base_url
    shown = told("status")
    assert shown.keys() == {"base_url", "endpoints"}
    assert (shown["base_url"], len(shown["endpoints"])) == (platform.base_url, 3)
