"""Imports into both kinds of stores; what a server or a network does to them is in test_import_faults."""

import hashlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.store.file_store import FileStore
from app.store.folders import Folder, FolderFile, RefusedEntry, SourceChanged, StoreFolder
from app.store.importing import import_folder
from app.store.layout import MANIFEST, find_manifests, read_manifest
from app.store.local_folder import LocalFolder
from app.store.object_store import ObjectMissing, ObjectStore, PartUpload, StoreError, StoreUnavailable
from app.store.removal import delete_version
from app.unit.weight_cache import fetch
from tests.store.imports import (
    JOURNAL,
    MIB,
    MODEL,
    PART_BYTES,
    PREFIX,
    SIZES,
    anything,
    bring,
    content,
    put,
    weights,
)

FILES = weights()
TOTAL_BYTES = sum(SIZES.values())
HASHES = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}


class Killed(BaseException):
    """As a kill, it runs no clean-up of ours that waits for it; the store is not told either."""


class Noted:
    """A store that notes what it is sent, by object and part."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.sent: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def write(self, name: str, data: bytes) -> None:
        if name not in (JOURNAL, PREFIX + MANIFEST):
            self.sent.append((name, 0))
        self.store.write(name, data)

    def open_upload(self, name: str, size_bytes: int, part_bytes: int) -> PartUpload:
        upload = self.store.open_upload(name, size_bytes, part_bytes)
        send = upload.send

        def noted(number: int, data: bytes) -> None:
            send(number, data)
            self.sent.append((name, number))

        upload.send = noted  # type: ignore[method-assign]
        return upload


class Slices:
    """A folder whose reads can be watched, or made to fail."""

    def __init__(self, folder: Folder, on_read: Callable[[str, int], None] = lambda name, start: None) -> None:
        self.files = folder.files
        self._folder = folder
        self._on_read = on_read

    def read(self, file: FolderFile, start: int = 0, length: int | None = None) -> bytes:
        self._on_read(file.name, start)
        return self._folder.read(file, start, length)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return put(tmp_path.resolve() / "weights", FILES)


@pytest.fixture
def folder(root: Path) -> LocalFolder:
    return LocalFolder(root)


def stop_after(bytes_done: int) -> Callable[[int, int], None]:
    def stop(done: int, total: int) -> None:
        if done > bytes_done:
            raise Killed

    return stop


def test_a_folder_becomes_a_version(store: ObjectStore, folder: LocalFolder) -> None:
    told: list[tuple[int, int]] = []
    manifest = bring(folder, store, on_progress=lambda done, total: told.append((done, total)))
    assert {file.name: (file.size_bytes, file.sha256) for file in manifest.files} == {
        name: (SIZES[name], HASHES[name]) for name in FILES
    }
    there = content(store)
    assert there.pop(MANIFEST)
    assert there == FILES
    assert list(find_manifests(store)) == [manifest]
    assert manifest.files_at == PREFIX
    assert told[0] == (0, TOTAL_BYTES)
    assert told[-1] == (TOTAL_BYTES, TOTAL_BYTES)
    assert told == sorted(told)
    with pytest.raises(ObjectMissing):
        store.read(JOURNAL)
    assert not list(store.unfinished(""))


def test_an_import_that_is_published_is_not_repeated(store: ObjectStore, folder: LocalFolder, root: Path) -> None:
    manifest = bring(folder, store)
    put(root, weights(1))
    assert bring(folder, Noted(store)) == manifest  # type: ignore[arg-type]
    assert content(store)["config.json"] == FILES["config.json"]


def test_unwanted_files_and_a_manifest_of_the_folder_s_own_stay_out(
    store: ObjectStore, folder: LocalFolder, root: Path
) -> None:
    put(root, {MANIFEST: b"theirs", "modeling.py": b"import os"})
    bring(folder, store, wanted=lambda file: not file.name.endswith(".py"))
    assert set(content(store)) == {*FILES, MANIFEST}


def test_a_folder_without_wanted_files_is_refused(store: ObjectStore, folder: LocalFolder) -> None:
    with pytest.raises(RefusedEntry, match="without any file"):
        bring(folder, store, wanted=lambda file: False)
    assert not list(store.list(""))


@pytest.mark.parametrize("bytes_done", [0, 300, 5 * MIB, 6 * MIB, 12 * MIB, 20 * MIB, TOTAL_BYTES - 1])
def test_what_has_arrived_is_not_sent_again(store: ObjectStore, folder: LocalFolder, bytes_done: int) -> None:
    first, second = Noted(store), Noted(store)
    with pytest.raises(Killed):
        bring(folder, first, on_progress=stop_after(bytes_done))  # type: ignore[arg-type]
    assert read_manifest(store, PREFIX) is None
    bring(folder, second)  # type: ignore[arg-type]
    assert content(store) == FILES | {MANIFEST: store.read(PREFIX + MANIFEST)}
    assert sorted(first.sent + second.sent) == sorted(set(first.sent + second.sent))


def test_without_its_journal_it_reads_again_but_sends_nothing_twice(store: ObjectStore, folder: LocalFolder) -> None:
    first, second = Noted(store), Noted(store)
    with pytest.raises(Killed):
        bring(folder, first, on_progress=stop_after(TOTAL_BYTES - 1))  # type: ignore[arg-type]
    store.delete(JOURNAL)
    bring(folder, second)  # type: ignore[arg-type]
    assert not set(first.sent) & set(second.sent)


def test_with_its_journal_it_does_not_read_whole_files_again(store: ObjectStore, folder: LocalFolder) -> None:
    with pytest.raises(Killed):
        bring(folder, store, on_progress=stop_after(TOTAL_BYTES - 1), concurrency=1)
    read: list[str] = []
    bring(Slices(folder, lambda name, start: read.append(name)), store)
    assert set(read) == {"sub/tokenizer.json"}


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"files": [{"name": "config.json"}]}'])
def test_a_broken_journal_is_as_good_as_none(store: ObjectStore, folder: LocalFolder, text: bytes) -> None:
    store.write(JOURNAL, text)
    bring(folder, store)
    assert store.read(f"{PREFIX}config.json") == FILES["config.json"]


def test_what_another_attempt_left_is_replaced_or_removed(store: ObjectStore, folder: LocalFolder) -> None:
    other = weights(1)
    for name in ("config.json", "model-1.safetensors"):
        store.write(PREFIX + name, other[name])  # the right sizes, the wrong bytes
    store.write(f"{PREFIX}optimizer.safetensors", b"left")
    store.open_upload(f"{PREFIX}gone.safetensors", 7 * MIB, PART_BYTES).send(0, bytes(PART_BYTES))
    stale = store.open_upload(f"{PREFIX}model-3.safetensors", 10 * MIB, PART_BYTES)
    stale.send(0, other["model-3.safetensors"][:PART_BYTES])
    bring(folder, store)
    there = content(store)
    assert there.pop(MANIFEST)
    assert there == FILES
    assert not list(store.unfinished(""))


@pytest.mark.parametrize("name", ["config.json", "model-1.safetensors", "sub/tokenizer.json"])
@pytest.mark.parametrize("when", [0, 1, TOTAL_BYTES])
def test_a_file_that_is_replaced_meanwhile_is_not_published(
    store: ObjectStore, folder: LocalFolder, root: Path, name: str, when: int
) -> None:
    other = weights(1)[name]

    def replace(done: int, total: int) -> None:
        if done >= when and (root / name).read_bytes() != other:
            put(root, {name: other})

    with pytest.raises(SourceChanged, match=f"^'{name}' was replaced"):
        bring(folder, store, on_progress=replace)
    assert read_manifest(store, PREFIX) is None
    manifest = bring(folder, store)
    assert content(store) == FILES | {name: other, MANIFEST: store.read(PREFIX + MANIFEST)}
    assert {file.name: file.sha256 for file in manifest.files}[name] == hashlib.sha256(other).hexdigest()


def test_a_file_that_comes_or_goes_meanwhile_is_noticed(store: ObjectStore, folder: LocalFolder, root: Path) -> None:
    def add(done: int, total: int) -> None:
        put(root, {"late.safetensors": b"x"})

    with pytest.raises(SourceChanged, match=r"late\.safetensors"):
        bring(folder, store, on_progress=add)

    def remove(done: int, total: int) -> None:
        if done == total:
            (root / "late.safetensors").unlink(missing_ok=True)

    with pytest.raises(SourceChanged, match=r"late\.safetensors"):
        bring(folder, store, on_progress=remove)
    bring(folder, store)
    assert set(content(store)) == {*FILES, MANIFEST}


def test_a_reverted_file_is_not_taken_for_the_one_between(store: ObjectStore, folder: LocalFolder, root: Path) -> None:
    """An old journal must not vouch for what was sent after it was written."""
    path = root / "config.json"
    times = os.stat(path)
    with pytest.raises(Killed):
        bring(folder, store, on_progress=stop_after(TOTAL_BYTES - 1))
    path.write_bytes(weights(1)["config.json"])
    with pytest.raises(Killed):
        bring(folder, store, on_progress=stop_after(TOTAL_BYTES - 1))
    path.write_bytes(FILES["config.json"])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    bring(folder, store)
    assert content(store)["config.json"] == FILES["config.json"]


def test_passing_failures_are_waited_out(store: ObjectStore, folder: LocalFolder) -> None:
    turns = itertools.count()

    def fail_sometimes(name: str, start: int) -> None:
        if next(turns) % 2:
            raise StoreUnavailable("source: SlowDown, at 'x'")

    bring(Slices(folder, fail_sometimes), store)
    assert content(store) == FILES | {MANIFEST: store.read(PREFIX + MANIFEST)}


def test_failures_that_stay_are_told_and_leave_what_has_arrived(store: ObjectStore, folder: LocalFolder) -> None:
    def fail_late(name: str, start: int) -> None:
        if name == "model-3.safetensors" and start:
            raise StoreUnavailable("source: SlowDown, at 'model-3.safetensors'")

    first, second = Noted(store), Noted(store)
    with pytest.raises(StoreUnavailable, match="SlowDown, at 'model-3"):
        bring(Slices(folder, fail_late), first, patience_s=0.5)  # type: ignore[arg-type]
    bring(folder, second)  # type: ignore[arg-type]
    assert not set(first.sent) & set(second.sent)


def test_failures_that_do_not_pass_end_it_at_once(store: ObjectStore, folder: LocalFolder) -> None:
    asked: list[str] = []

    def refuse(name: str, start: int) -> None:
        asked.append(name)
        raise StoreError("source: AccessDenied, at 'x'")

    with pytest.raises(StoreError, match="AccessDenied"):
        bring(Slices(folder, refuse), store, concurrency=1)
    assert len(asked) == 1


class Held(bytes):
    """Bytes that are counted while they are anywhere."""

    alive = most = 0
    lock = threading.Lock()

    def __init__(self, *_: object) -> None:
        with Held.lock:
            Held.alive += 1
            Held.most = max(Held.most, Held.alive)

    def __del__(self) -> None:
        with Held.lock:
            Held.alive -= 1


@pytest.mark.parametrize("concurrency", [1, 4])
def test_no_more_parts_are_held_than_there_are_threads(tmp_path: Path, concurrency: int) -> None:
    slow = threading.Event()

    class Endless:
        """The first part of a file comes last."""

        def files(self) -> list[FolderFile]:
            return [FolderFile(name, 500_000, "e") for name in ("a", "b")]

        def read(self, file: FolderFile, start: int = 0, length: int | None = None) -> bytes:
            assert length is not None
            if concurrency > 1 and start == 0:
                slow.wait(0.2)
            return Held(length)

    Held.most = 0
    bring(Endless(), FileStore(tmp_path), part_bytes=10_000, concurrency=concurrency)
    assert Held.most <= concurrency + 2  # a hashed part of each file may still be in the hand that hashed it
    assert Held.alive == 0


def test_a_half_imported_version_can_be_deleted(store: ObjectStore, folder: LocalFolder) -> None:
    with pytest.raises(Killed):
        bring(folder, store, on_progress=stop_after(6 * MIB))
    store.write("models/m-2/BF16/other", b"")
    for _ in range(2):
        delete_version(store, PREFIX)
        assert {stored.name for stored in store.list("")} == {"models/m-2/BF16/other", JOURNAL}
        assert not list(store.unfinished(""))


@pytest.fixture
def own(store: ObjectStore) -> Iterator[ObjectStore]:
    """A store with a folder of weights of the user's own, which nothing may change."""
    small = {name: data[:1000] for name, data in FILES.items()}
    for name, data in small.items():
        store.write(f"mine/qwen/{name}", data)
    yield store
    assert {stored.name: store.read(stored.name) for stored in store.list("mine/")} == {
        f"mine/qwen/{name}": data for name, data in small.items()
    }


class Prefixed:
    """A prefix of a store as a folder, as a source in the platform's own store would be."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def files(self) -> list[FolderFile]:
        found = self._store.list(self._prefix)
        return [FolderFile(stored.name.removeprefix(self._prefix), stored.size_bytes, "e") for stored in found]

    def read(self, file: FolderFile, start: int = 0, length: int | None = None) -> bytes:
        return self._store.read(self._prefix + file.name, start, length)


def refer(store: ObjectStore, prefix: str = "mine/qwen/", **options: Any) -> Any:
    given = {**MODEL, "journal": JOURNAL, "wanted": anything, **options}
    return import_folder(Prefixed(store, "mine/qwen/"), store, files_prefix=prefix, **given)


def test_a_referenced_folder_stays_where_it_is(own: ObjectStore) -> None:
    manifest = refer(own)
    assert manifest.files_at == "mine/qwen/"
    assert list(find_manifests(own)) == [manifest]
    assert set(content(own)) == {MANIFEST}
    version = StoreFolder(own, PREFIX)
    assert {file.name: version.read(file) for file in version.files()} == {
        name: data[:1000] for name, data in FILES.items()
    }
    assert refer(own) == manifest


def test_a_referenced_folder_outlives_its_version(own: ObjectStore) -> None:
    refer(own)
    delete_version(own, PREFIX)
    assert not list(own.list("models/"))


def test_a_referenced_folder_is_copied_to_a_node_even_from_the_same_machine(tmp_path: Path) -> None:
    """Its owner may change it, or put more beside it than was looked at."""
    store = FileStore(tmp_path / "objects")
    for name in ("config.json", "modeling.py"):
        store.write(f"mine/qwen/{name}", name.encode())
    refer(store, wanted=lambda file: not file.name.endswith(".py"))
    weights = fetch(store, PREFIX, tmp_path / "cache")
    assert weights.folder.is_relative_to(tmp_path / "cache")
    assert [path.name for path in weights.folder.iterdir()] == ["config.json"]
    weights.close()


def test_published_versions_and_other_folders_are_not_referred_to(own: ObjectStore) -> None:
    with pytest.raises(RefusedEntry, match="where published versions lie"):
        refer(own, "models/m-2/BF16/")
    with pytest.raises(StoreError, match=r"'config\.json' is not there"):
        refer(own, "mine/")
    assert read_manifest(own, PREFIX) is None


def test_a_referenced_folder_that_changes_is_not_published(own: ObjectStore) -> None:
    def touch(done: int, total: int) -> None:
        own.write("mine/qwen/late", b"")

    with pytest.raises(SourceChanged, match="late"):
        refer(own, on_progress=touch)
    assert read_manifest(own, PREFIX) is None
    own.delete("mine/qwen/late")
