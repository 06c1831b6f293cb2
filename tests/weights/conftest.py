"""Sound weight folders, a validation of one, and the warm validator."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.findings import Report
from app.store.folders import Folder
from app.store.local_folder import LocalFolder
from app.weights.validator_client import SERVER
from tests.fork_servers import end_servers
from tests.weights.verdicts import MACHINES, Check, Sound


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """Sound folders by family, each saved once; not to be written to."""
    from tests.weights.sound_folders import write_sound  # torch: not for tests that need none of it

    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp("sound") / family
            if family == "sharded":
                write_sound("llama", folder, max_shard_size="100KB")
            else:
                write_sound(family, folder)
            made[family] = folder
        return made[family]

    return get


@pytest.fixture
def copy(saved: Sound, tmp_path: Path) -> Sound:
    """Copies of sound folders, to be broken."""

    def get(family: str) -> Path:
        return Path(shutil.copytree(saved(family), tmp_path / family))

    return get


@pytest.fixture
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Validate a folder, without loading its tokenizer unless told otherwise."""
    from app.weights.validation import validate
    from tests.weights.sound_folders import entry_for

    def run(folder: Path | Folder, family: str = "llama", precision: str = "BF16", **options: Any) -> Report:
        entry = options.pop("entry", None) or entry_for(family)
        options = {"machines": MACHINES, "tokenizer_check": lambda folder, rows: [], **options}
        source = LocalFolder(folder) if isinstance(folder, Path) else folder
        return validate(source, entry, precision, tmp_path_factory.mktemp("work"), **options)  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def warm_run_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of the real validator: the first check starts it, which takes ten seconds; the others find it warm."""
    run_dir = tmp_path_factory.mktemp("home") / "run"
    yield run_dir
    end_servers(SERVER.module, run_dir)
