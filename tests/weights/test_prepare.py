"""`python -m app.weights.prepare FOLDER`: what it stores, and what it does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from app.store.layout import find_manifests
from app.store.objects import open_store
from app.weights import prepare


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def run(settings: Settings, folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "app.weights.prepare", str(folder)]
    return subprocess.run(command, env=settings.to_environ(), capture_output=True, text=True, timeout=60, check=False)


def stored(settings: Settings) -> set[str]:
    return {file.name for manifest in find_manifests(open_store(settings)) for file in manifest.files}


def test_the_snapshot_of_a_hubs_cache_is_stored(settings: Settings, tmp_path: Path):
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "0a1b"
    for folder in (blobs, snapshot / "more"):
        folder.mkdir(parents=True)
    (blobs / "1").write_text("{}")
    (blobs / "2").write_text("words")
    (snapshot / "config.json").symlink_to("../../blobs/1")
    (snapshot / "more" / "words.txt").symlink_to("../../../blobs/2")
    (snapshot / "again.json").symlink_to("config.json")
    result = run(settings, snapshot)
    assert result.returncode == 0, result.stderr
    assert stored(settings) == {"config.json", "more/words.txt", "again.json"}


@pytest.mark.parametrize(
    "target", ["../secret", "/etc/hostname", "../others", "../blobs/1", ".", "absent", "/dev/null"]
)
def test_other_links_are_refused_by_name(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
):
    (tmp_path / "secret").write_text("hidden")
    for name in ("others", "blobs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1").write_text("hidden")
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    link = folder / "deep" / "tokenizer.json"
    link.symlink_to(target if target.startswith("/") else f"../{target}")
    monkeypatch.setattr("sys.argv", ["prepare", str(folder)])
    monkeypatch.setenv("MODELUNIT_HOME", str(settings.home))
    with pytest.raises(SystemExit, match=r"^the model cannot be stored: deep/tokenizer\.json is a link"):
        prepare.main()
    assert not stored(settings)


def test_blobs_beside_a_folder_that_is_no_snapshot_are_not_its_own(settings: Settings, tmp_path: Path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").write_text("hidden")
    folder = tmp_path / "mine" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").symlink_to("../../blobs/1")
    result = run(settings, folder)
    assert (result.returncode, "config.json is a link" in result.stderr) == (1, True)
