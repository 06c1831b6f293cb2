"""Bringing versions and files onto this machine, and the places that people name to be written to."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from app.core.model_specs import Source
from app.settings import Settings
from app.store.fetching import fetch_file, fetch_version
from app.store.folders import RefusedEntry, SourceChanged
from app.store.layout import newest_checkpoint, publish_folder, put_folder, read_manifest
from app.store.object_store import StoreError
from app.store.objects import open_store, open_target
from app.store.sources import open_file
from tests.s3 import Bucket

PREFIX = "models/m-1/BF16/"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "weights.safetensors").write_bytes(b"w" * 100)
    return folder


def published(settings: Settings, source: Path) -> Any:
    store = open_store(settings)
    publish_folder(store, source, model_id="m-1", name="m", base_model="b", precision="BF16")
    return store


class Elsewhere:
    """A store whose objects have no files on this machine."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.downloads: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def local_path(self, name: str) -> None:
        return None

    def download(self, name: str, path: Path, on_bytes: Any = None) -> None:
        self.downloads.append(name)
        self._store.download(name, path)


def test_a_store_on_this_machine_is_read_where_it_is(settings: Settings, source: Path, tmp_path: Path) -> None:
    folder = fetch_version(published(settings, source), PREFIX, tmp_path / "copy")
    assert (folder / "sub" / "weights.safetensors").read_bytes() == b"w" * 100
    assert not (tmp_path / "copy").exists()


def test_what_has_arrived_is_not_fetched_again(settings: Settings, source: Path, tmp_path: Path) -> None:
    store = Elsewhere(published(settings, source))
    told: list[tuple[int, int]] = []
    fetch_version(store, PREFIX, tmp_path / "copy", wanted=lambda name: name == "config.json")
    folder = fetch_version(store, PREFIX, tmp_path / "copy", lambda done, total: told.append((done, total)))
    assert store.downloads == [f"{PREFIX}config.json", f"{PREFIX}sub/weights.safetensors"]
    assert (folder / "sub" / "weights.safetensors").read_bytes() == b"w" * 100
    assert told == [(2, 102), (102, 102)]


def test_what_is_not_what_the_manifest_says_is_refused(settings: Settings, source: Path, tmp_path: Path) -> None:
    store = published(settings, source)
    store.write(f"{PREFIX}config.json", b"[]")
    with pytest.raises(StoreError, match="not what the manifest says"):
        fetch_version(Elsewhere(store), PREFIX, tmp_path / "copy")
    with pytest.raises(StoreError, match="nothing is published"):
        fetch_version(store, "models/m-2/BF16/", tmp_path / "copy")


def test_put_without_a_manifest_is_not_published(settings: Settings, source: Path) -> None:
    store = open_store(settings)
    manifest = put_folder(store, source, model_id="m-1", name="m", base_model="b", precision="BF16")
    assert read_manifest(store, PREFIX) is None
    assert publish_folder(store, source, model_id="m-1", name="m", base_model="b", precision="BF16") == manifest


def test_one_file_is_fetched_by_its_address(settings: Settings, source: Path, tmp_path: Path) -> None:
    folder, file = open_file(Source(uri=(source / "config.json").as_uri()), settings)
    assert fetch_file(folder, file, tmp_path / "here.json") == hashlib.sha256(b"{}").hexdigest()
    (source / "config.json").write_text("changed")
    with pytest.raises(SourceChanged):
        fetch_file(folder, file, tmp_path / "here.json")


def test_links_folders_and_nothing_are_no_files(settings: Settings, source: Path) -> None:
    (source / "link").symlink_to(source / "config.json")
    for name, error in (("link", RefusedEntry), ("sub", RefusedEntry), ("none", StoreError)):
        with pytest.raises(error):
            open_file(Source(uri=(source / name).as_uri()), settings)


@pytest.mark.service
def test_one_object_is_fetched_by_its_address(bucket: Bucket, tmp_path: Path) -> None:
    open_target(bucket.uri(), bucket.settings()).write("facts.jsonl", b"{}")
    folder, file = open_file(Source(uri=f"{bucket.uri()}/facts.jsonl"), bucket.settings())
    assert fetch_file(folder, file, tmp_path / "here") == hashlib.sha256(b"{}").hexdigest()
    with pytest.raises(StoreError):
        open_file(Source(uri=f"{bucket.uri()}/none"), bucket.settings())


def test_nothing_is_written_behind_a_link(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(StoreError, match="a link on the way"):
        open_target((tmp_path / "link" / "out").as_uri(), settings)
    open_target((tmp_path / "real" / "out").as_uri(), settings).write("a", b"b")
    assert (tmp_path / "real" / "out" / "a").read_bytes() == b"b"


def test_the_newest_checkpoint_is_the_last_that_is_whole(settings: Settings) -> None:
    store = open_store(settings)
    assert newest_checkpoint(store, "job-1") == 0
    for iteration, file in ((10, "manifest.json"), (20, "manifest.json"), (30, "state.safetensors")):
        store.write(f"jobs/job-1/checkpoints/{iteration:07}/{file}", b"")
    assert newest_checkpoint(store, "job-1") == 20
