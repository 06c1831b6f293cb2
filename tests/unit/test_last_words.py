"""Why an engine could not start, as an operator reads it."""

from pathlib import Path

import pytest

from app.core.errors import EngineStartError
from app.unit.last_words import last_words

HIDDEN = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    return tmp_path / "engine.log"


def test_an_error_that_says_why_is_enough(log_file: Path) -> None:
    assert last_words(ValueError("no room\nfor the cache"), log_file) == "ValueError: no room for the cache"
    assert last_words(EngineStartError("the weights changed"), log_file) == "the weights changed"
    assert len(last_words(ValueError("x" * 5000), log_file)) == 1000


def test_it_holds_no_secrets_and_no_folders(log_file: Path) -> None:
    error = OSError(
        "GET http://me:secret@host/v1?token=abcdefgh failed for /opt/models/a.safetensors \x1b[31mhf_" + "a" * 30
    )
    words = last_words(error, log_file)
    assert words == "OSError: GET http://***@host/v1?token=*** failed for a.safetensors ***"
    log_file.write_text("ERROR ValueError: no access with AKIAIOSFODNN7EXAMPLE to /data/weights\n")
    assert last_words(HIDDEN, log_file) == "ValueError: no access with *** to weights"


def test_a_hidden_cause_is_in_the_log(log_file: Path) -> None:
    log_file.write_text(
        "(EngineCore pid=7) ERROR Traceback (most recent call last):\n"
        "(EngineCore pid=7) ERROR ValueError: the first trouble\n"
        "(EngineCore pid=7) ERROR torch.OutOfMemoryError: tried to allocate 2 GiB\n"
        f"RuntimeError: {HIDDEN}\n"
    )
    assert last_words(HIDDEN, log_file) == "torch.OutOfMemoryError: tried to allocate 2 GiB"


def test_a_cause_that_nobody_tells_stays_hidden(log_file: Path) -> None:
    log_file.write_text("loading weights\n")
    assert last_words(HIDDEN, log_file) == f"RuntimeError: {HIDDEN}"
