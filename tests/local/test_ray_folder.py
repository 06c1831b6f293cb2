"""Where Ray keeps its files: for this user only, and gone with the run."""

import stat
from pathlib import Path

import pytest

from app.local import ray_folder, ray_node
from app.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = Settings(home=tmp_path / "home")
    settings.run_dir.mkdir(parents=True)
    return settings


def test_it_is_private_whatever_ray_does_to_what_it_is_given(settings: Settings):
    folder = ray_folder.make(settings)
    folder.mkdir()
    folder.chmod(0o777)
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert ray_folder.make(settings) != folder


def test_it_is_removed_with_all_that_is_in_it_and_by_another_process_too(settings: Settings, tmp_path: Path):
    folder = ray_folder.make(settings)
    (folder / "session").mkdir(parents=True)
    kept = tmp_path / "kept"
    kept.mkdir()
    (folder / "session" / "latest").symlink_to(kept)
    ray_folder.remove(settings)
    assert not folder.parent.exists()
    assert kept.exists()
    ray_folder.remove(settings)


def test_one_that_could_not_be_made_is_no_hindrance(settings: Settings, tmp_path: Path):
    tmp_path.chmod(0o700)
    (settings.run_dir / "ray_folder").write_text(str(tmp_path / "mu-ray-absent"))
    ray_folder.remove(settings)
    ray_folder.make(settings)


def test_ray_is_told_to_use_it(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    begun: list[list[str]] = []
    monkeypatch.setattr("subprocess.Popen", lambda command, **_: begun.append(command))
    ray_node.start(settings, {}, tmp_path / "its")
    assert f"--temp-dir={tmp_path / 'its'}" in begun[0]
