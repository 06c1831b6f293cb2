import logging
import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from app.core.errors import Conflict
from app.store.layout import (
    MANIFEST,
    LogObject,
    Manifest,
    ManifestFile,
    find_manifests,
    log_hour,
    log_prefix,
    parse_log_name,
    publish_folder,
    read_manifest,
    version_prefix,
)
from app.store.object_store import ObjectStore, OnBytes, StoreError

FILES = {
    "config.json": b"{}",
    "model-1.safetensors": bytes(100_000),
    "model-2.safetensors": bytes(200_000),
    "sub/tokenizer.json": b"[]",
}
PREFIX = "models/m-1/BF16/"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return filled(tmp_path / "source", FILES)


def filled(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def publish(
    store: ObjectStore, folder: Path, on_bytes: OnBytes | None = None, *, model_id: str = "m-1", name: str = "demo"
) -> Manifest:
    return publish_folder(
        store, folder, model_id=model_id, name=name, base_model="qwen", precision="BF16", on_bytes=on_bytes
    )


def names(store: ObjectStore) -> set[str]:
    return {stored.name for stored in store.list("")}


class Killed(Exception):
    pass


class Dying:
    """A store whose uploads stop for good after so many bytes, in the middle of a file or between two."""

    def __init__(self, store: ObjectStore, after_bytes: int) -> None:
        self._store = store
        self._left = after_bytes
        self.list, self.read, self.write, self.delete = store.list, store.read, store.write, store.delete
        self.download, self.local_path = store.download, store.local_path

    def upload(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        def count(moved: int) -> None:
            self._left -= moved
            if self._left <= 0:
                raise Killed

        self._store.upload(name, path, count)


def test_publish_and_read_back(store: ObjectStore, folder: Path) -> None:
    moved: list[int] = []
    manifest = publish(store, folder, moved.append)
    assert names(store) == {PREFIX + name for name in FILES} | {PREFIX + MANIFEST}
    assert read_manifest(store, PREFIX) == manifest
    assert {file.name: file.size_bytes for file in manifest.files} == {name: len(data) for name, data in FILES.items()}
    assert manifest.total_bytes == sum(moved) == sum(map(len, FILES.values()))
    assert all(store.read(PREFIX + name) == data for name, data in FILES.items())


def test_publishing_again_moves_nothing(store: ObjectStore, folder: Path) -> None:
    first = publish(store, folder)
    moved: list[int] = []
    assert publish(store, folder, moved.append) == first
    assert moved == []


@pytest.mark.parametrize("after_bytes", [1, 2, 50_000, 100_002, 250_000, 300_002])
def test_killed_in_the_middle_then_run_again(store: ObjectStore, folder: Path, after_bytes: int) -> None:
    with pytest.raises(Killed):
        publish(Dying(store, after_bytes), folder)
    assert read_manifest(store, PREFIX) is None
    assert list(find_manifests(store)) == []
    manifest = publish(store, folder)
    assert read_manifest(store, PREFIX) == manifest
    assert all(store.read(PREFIX + name) == data for name, data in FILES.items())


def test_leftovers_of_another_attempt_are_replaced_or_removed(store: ObjectStore, folder: Path) -> None:
    store.write(PREFIX + "config.json", b"[]")  # the right size, the wrong bytes
    store.write(PREFIX + "optimizer.pt", b"left")
    store.write("models/m-1/BF16-other/file", b"not ours")
    publish(store, folder)
    assert store.read(PREFIX + "config.json") == b"{}"
    assert names(store) - {PREFIX + name for name in FILES} == {PREFIX + MANIFEST, "models/m-1/BF16-other/file"}


def test_publishing_again_mends_what_was_lost(store: ObjectStore, folder: Path) -> None:
    publish(store, folder)
    store.delete(PREFIX + "config.json")
    store.write(PREFIX + "stray", b"")
    publish(store, folder)
    assert names(store) == {PREFIX + name for name in FILES} | {PREFIX + MANIFEST}


def test_published_weights_do_not_change(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    manifest = publish(store, folder)
    other = filled(tmp_path / "other", FILES | {"config.json": b"[]"})
    with pytest.raises(Conflict, match="already published as BF16 of model m-1"):
        publish(store, other)
    assert read_manifest(store, PREFIX) == manifest
    assert store.read(PREFIX + "config.json") == b"{}"


def test_a_file_that_changes_meanwhile_is_not_published(store: ObjectStore, folder: Path) -> None:
    def grow(_: int) -> None:
        (folder / "sub" / "tokenizer.json").write_bytes(b"[1]")

    with pytest.raises(StoreError, match=r"^sub/tokenizer\.json changed"):
        publish(store, folder, grow)
    assert read_manifest(store, PREFIX) is None


def test_a_new_name_for_the_same_weights(store: ObjectStore, folder: Path) -> None:
    digest = publish(store, folder).digest
    renamed = publish(store, folder, name="renamed")
    assert read_manifest(store, PREFIX) == renamed
    assert renamed.digest == digest


def test_what_is_hidden_stays_out(store: ObjectStore, folder: Path) -> None:
    filled(folder, {".git/config": b"x", ".env": b"x", "sub/.cache": b"x", MANIFEST: b"of an older copy"})
    assert {file.name for file in publish(store, folder).files} == set(FILES)


def test_links_inside_are_followed_and_links_outside_refused(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    filled(folder, {".blobs/abc": b"linked"})
    (folder / "inside").symlink_to(".blobs/abc")
    publish(store, folder)
    assert store.read(PREFIX + "inside") == b"linked"

    filled(tmp_path, {"secret": b"secret"})
    (folder / "sub" / "outside").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=r"^sub/outside is neither"):
        publish(store, folder, model_id="m-2")
    assert read_manifest(store, version_prefix("m-2", "BF16")) is None


@pytest.mark.parametrize("what", ["broken link", "link to a folder", "pipe"])
def test_what_is_not_a_file_is_refused(tmp_path: Path, folder: Path, store: ObjectStore, what: str) -> None:
    if what == "pipe":
        os.mkfifo(folder / "odd")
    else:
        (folder / "odd").symlink_to("nowhere" if what == "broken link" else "sub")
    with pytest.raises(ValueError, match="odd is neither"):
        publish(store, folder)


def test_a_folder_must_hold_something(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="files"):
        publish(store, tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        publish(store, tmp_path / "nowhere")


@pytest.mark.parametrize("model_id", ["", "..", "a/b", "../x", "/a", "a\\b"])
def test_an_id_is_one_part_of_a_name(model_id: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        version_prefix(model_id, "BF16")


def test_the_digest_is_about_the_files_alone() -> None:
    files = tuple(ManifestFile(name=name, size_bytes=1, sha256="a" * 64) for name in ("x", "y"))
    one = Manifest(model_id="m", name="n", base_model="b", precision="BF16", files=files)
    same = Manifest(model_id="m2", name="n2", base_model="b2", precision="W4A8", files=files[::-1])
    assert one.digest == same.digest
    assert one.digest == "04cdad0c8410f92b53250363abc862236898c50d219c731c0bd6fd7ca58e8439"
    for change in ({"name": "z"}, {"size_bytes": 2}, {"sha256": "b" * 64}):
        other = one.model_copy(update={"files": (files[0].model_copy(update=change), files[1])})
        assert other.digest != one.digest


BROKEN_MANIFESTS = [
    b"",
    b"{",
    b"[]",
    b"{}",
    b'{"model_id":"m-1","name":"n","base_model":"b","precision":"BF16","files":[]}',
    b'{"model_id":"m-1","name":"n","base_model":"b","precision":"BF16","files":'
    b'[{"name":"../x","size_bytes":1,"sha256":"' + b"a" * 64 + b'"}]}',
]


def test_a_broken_manifest_is_named_and_passed_over(
    store: ObjectStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = publish(store, folder)
    broken = version_prefix("m-0", "BF16")
    for text in BROKEN_MANIFESTS:
        store.write(broken + MANIFEST, text)
        with pytest.raises(ValueError, match=f"^{broken}{MANIFEST}: "):
            read_manifest(store, broken)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert list(find_manifests(store)) == [good]
        assert broken + MANIFEST in caplog.text


def test_find_looks_where_versions_lie(store: ObjectStore, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    wanted = [publish(store, folder, model_id=model_id) for model_id in ("m-1", "m-2")]
    text = store.read(PREFIX + MANIFEST)
    for elsewhere in (
        "models/manifest.json",
        "models/m-1/manifest.json",
        f"{PREFIX}sub/manifest.json",
        "jobs/a/b/manifest.json",
    ):
        store.write(elsewhere, text)
    store.write("models/m-3/BF16/manifest.json", text)  # a copy that still names m-1
    assert list(find_manifests(store)) == wanted
    assert "models/m-3/BF16/manifest.json" in caplog.text


def test_a_piece_of_a_log_is_named_by_what_it_is() -> None:
    piece = LogObject("ep-20260131093000-abcde", "20260131T09", "x1y2z3a4", 12)
    assert piece.name == "logs/ep-20260131093000-abcde/20260131T09-x1y2z3a4-00012.log"
    assert parse_log_name(piece.name) == piece
    assert piece.name.startswith(log_prefix(piece.endpoint_id))
    for other in (
        "logs/",
        "logs/ep-1/x.log",
        "logs/ep-1/20260131T09-a.log",
        "logs/a/b/20260131T09-a-0.log",
        "models/m",
    ):
        assert parse_log_name(other) is None


def test_hours_are_counted_in_utc() -> None:
    moment = datetime(2026, 1, 31, 23, 59, tzinfo=UTC)
    assert log_hour(moment) == log_hour(moment.astimezone(timezone(timedelta(hours=8)))) == "20260131T23"
    assert log_hour(moment) < log_hour(moment + timedelta(minutes=1))


def test_logs_belong_to_one_endpoint() -> None:
    for endpoint_id in ("", "..", "a/b", "../models"):
        with pytest.raises(ValueError, match="not a"):
            log_prefix(endpoint_id)
