import itertools
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.settings import Settings
from app.store.file_store import FileStore
from app.store.object_store import INCOMING, ObjectMissing, ObjectStore, StoredObject, StoreError
from app.store.objects import open_store
from app.store.s3_store import S3Store

MIB = 1 << 20
BAD_NAMES = [
    "",
    "/a",
    "a/",
    "a//b",
    "..",
    "a/../b",
    ".",
    "a/./b",
    "a\\b",
    "a\0b",
    f"{INCOMING}/x",
    "a" * 1025,
    "\ud800",
]


def names(store: ObjectStore, prefix: str = "") -> list[str]:
    return [stored.name for stored in store.list(prefix)]


def test_what_is_written_is_read(store: ObjectStore) -> None:
    store.write("a/b.bin", b"0123456789")
    store.write("a/b.bin", b"replaced!!")
    assert store.read("a/b.bin") == b"replaced!!"
    assert list(store.list("")) == [StoredObject("a/b.bin", 10)]


def test_ranges(store: ObjectStore) -> None:
    for data in (b"", b"0123456789"):
        store.write("x", data)
        for start, length in itertools.product([0, 3, 10, 99], [None, 0, 1, 7, 1 << 50]):
            assert store.read("x", start, length) == data[start:][:length], (data, start, length)


def test_negative_ranges_are_refused(store: ObjectStore) -> None:
    store.write("x", b"0123")
    with pytest.raises(ValueError, match="negative"):
        store.read("x", -1)
    with pytest.raises(ValueError, match="negative"):
        store.read("x", 0, -1)


def test_a_missing_object_says_so(store: ObjectStore, tmp_path: Path) -> None:
    store.write("a/b", b"")
    for name in ("nothing", "a", "a/b/c"):
        for call in (
            lambda name=name: store.read(name),
            lambda name=name: store.read(name, 0, 0),
            lambda name=name: store.download(name, tmp_path / "target"),
        ):
            with pytest.raises(ObjectMissing, match=f"no such object: {name}$"):
                call()
        assert store.local_path(name) is None
        store.delete(name)
    assert store.read("a/b") == b""
    assert not list(tmp_path.glob("*target*"))
    assert not list(tmp_path.glob(".*"))


def test_missing_survives_pickle() -> None:
    assert str(pickle.loads(pickle.dumps(ObjectMissing("a/b")))) == "no such object: a/b"


def test_delete(store: ObjectStore) -> None:
    store.write("a/b/c", b"1")
    store.write("a/d", b"2")
    store.delete("a/b/c")
    store.delete("a/b/c")
    assert names(store) == ["a/d"]
    store.write("a/b", b"a name that was a folder")
    assert names(store) == ["a/b", "a/d"]


def test_list_is_sorted_by_whole_names(store: ObjectStore) -> None:
    wanted = ["o/a b+c%20?#&=", "o/a-b", "o/a.b", "o/a/b", "o/a/c/d", "o/a0", "o/中文/é", "p"]
    for name in reversed(wanted):
        store.write(name, b"")
    assert names(store) == wanted
    assert names(store, "o/") == wanted[:-1]
    assert names(store, "o/a/") == ["o/a/b", "o/a/c/d"]
    assert names(store, "o/a/b") == ["o/a/b"]
    assert names(store, "o/a") == wanted[:6]
    assert names(store, "q") == names(store, "o/q/") == names(store, "p/") == []


def test_bad_names_are_refused_everywhere(store: ObjectStore, tmp_path: Path) -> None:
    calls: list[Callable[[str], object]] = [
        store.read,
        lambda name: store.write(name, b""),
        lambda name: store.upload(name, Path(__file__)),
        lambda name: store.download(name, tmp_path / "x"),
        store.delete,
        store.local_path,
    ]
    for name, call in itertools.product(BAD_NAMES, calls):
        with pytest.raises(ValueError, match=r"object name|surrogates"):
            call(name)


def test_bad_prefixes_are_refused(store: ObjectStore) -> None:
    for prefix in ("/", "../", "a//", "a/../b", "\\", f"{INCOMING}/"):
        with pytest.raises(ValueError, match="object name"):
            names(store, prefix)


@pytest.mark.parametrize("size", [0, 5 * MIB, 33 * MIB])  # nothing; one part; several
def test_files_go_up_and_come_down(store: ObjectStore, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "new folder" / "target"
    data = os.urandom(MIB) * (size // MIB)
    source.write_bytes(data)
    moved: list[int] = []
    store.upload("m/weights", source, moved.append)
    assert sum(moved) == size
    moved.clear()
    store.download("m/weights", target, moved.append)
    assert sum(moved) == size
    assert target.read_bytes() == data
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    assert list(store.list("m/")) == [StoredObject("m/weights", size)]


def test_a_download_that_breaks_leaves_the_old_file(store: ObjectStore, tmp_path: Path) -> None:
    store.write("x", b"new")
    target = tmp_path / "target" / "x"
    target.parent.mkdir()
    target.write_bytes(b"old")

    def fail(_: int) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        store.download("x", target, fail)
    assert target.read_bytes() == b"old"
    assert [path.name for path in target.parent.iterdir()] == ["x"]


def test_readers_see_whole_objects(store: ObjectStore) -> None:
    sizes = (100_000, 200_000)
    store.write("x", bytes(sizes[0]))
    done = threading.Event()

    def write() -> None:
        for turn in range(20):
            store.write("x", bytes(sizes[turn % 2]))
        done.set()

    with ThreadPoolExecutor(1) as writer:
        written = writer.submit(write)
        while not done.is_set() and not written.done():
            assert len(store.read("x")) in sizes
        written.result()


def test_a_file_store_lends_its_files(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.write("a/b", b"data")
    assert store.local_path("a/b") == tmp_path / "a" / "b"
    assert store.local_path("a") is None


def test_half_written_objects_never_show_and_go_in_time(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.write("a", b"1")
    fresh, old = tmp_path / INCOMING / "fresh", tmp_path / INCOMING / "old"
    for stray in (fresh, old):
        stray.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert names(store) == ["a"]
    store.write("b", b"2")
    assert names(store) == ["a", "b"]
    assert [path.name for path in (tmp_path / INCOMING).iterdir()] == ["fresh"]


def test_an_upload_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "objects")
    (tmp_path / "source").write_bytes(b"data")

    def fail(_: int) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        store.upload("x", tmp_path / "source", fail)
    assert names(store) == []
    assert list((tmp_path / "objects" / INCOMING).iterdir()) == []


def test_writers_and_deleters_of_one_folder_do_not_trip(tmp_path: Path) -> None:
    store = FileStore(tmp_path)

    def churn(number: int) -> None:
        for _ in range(50):
            store.write(f"deep/er/{number}", b"x")
            store.delete(f"deep/er/{number}")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(churn, range(4)))
    assert names(store) == []


def test_links_in_a_file_store_are_not_objects(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "objects")
    store.write("a", b"1")
    (tmp_path / "objects" / "link").symlink_to("/etc")
    assert names(store) == ["a"]


@pytest.mark.parametrize(
    "address", ["file://relative", "/folder", "s3://", "s3://ab", "s3://key:secret@bucket/x", "gs://bucket"]
)
def test_other_addresses_are_refused_without_being_repeated(address: str) -> None:
    with pytest.raises(ValueError, match="file:///FOLDER or s3://BUCKET/PREFIX") as refused:
        open_store(Settings(object_store=address))
    assert "secret" not in str(refused.value)


def test_addresses_choose_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_store(Settings(object_store=f"file://{tmp_path}/a%20#b")), FileStore)
    assert isinstance(open_store(Settings(object_store="s3://bucket")), S3Store)
    assert isinstance(open_store(Settings(object_store="s3://my.bucket-1/pre/fix/", s3_region="cn-north-4")), S3Store)


@pytest.mark.service
def test_s3_errors_name_no_credential(s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFNOBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-nobody")
    store = open_store(Settings(object_store="s3://modelunit-tests/x", s3_endpoint_url=s3_url))
    (tmp_path / "source").write_bytes(b"data")
    calls: list[Callable[[], object]] = [
        lambda: store.read("a"),
        lambda: store.write("a", b""),
        lambda: store.upload("a", tmp_path / "source"),
        lambda: names(store),
    ]
    for call in calls:
        with pytest.raises(StoreError, match=r"object store: [A-Za-z0-9]+, at '") as failure:
            call()
        assert "AKID" not in str(failure.value)
        assert "secret" not in str(failure.value)
        assert failure.value.__suppress_context__


PART_BYTES = 5 * MIB


def test_an_object_arrives_in_parts_in_any_order(store: ObjectStore) -> None:
    data = os.urandom(11 * MIB)
    upload = store.open_upload("m/weights", len(data), PART_BYTES)
    for number in (2, 0, 1):
        assert not upload.holds(number, data[number * PART_BYTES :][:PART_BYTES])
        upload.send(number, data[number * PART_BYTES :][:PART_BYTES])
    assert names(store) == []
    assert [upload.name for upload in store.unfinished("m/")] == ["m/weights"]
    upload.finish()
    assert store.read("m/weights") == data
    assert list(store.unfinished("")) == []


def test_an_unfinished_upload_is_gone_on_with(store: ObjectStore) -> None:
    data = os.urandom(11 * MIB)
    parts = [data[start:][:PART_BYTES] for start in range(0, len(data), PART_BYTES)]
    first = store.open_upload("m/weights", len(data), PART_BYTES)
    first.send(2, parts[2])
    first.send(0, bytes(PART_BYTES))
    second = store.open_upload("m/weights", len(data), PART_BYTES)
    assert [second.holds(number, part) for number, part in enumerate(parts)] == [False, False, True]
    second.send(1, parts[1])
    second.send(0, parts[0])
    second.finish()
    assert store.read("m/weights") == data


def test_an_upload_replaces_an_object_when_it_is_finished(store: ObjectStore) -> None:
    store.write("x", b"old")
    upload = store.open_upload("x", 3, PART_BYTES)
    upload.send(0, b"new")
    assert store.read("x") == b"old"
    upload.finish()
    assert store.read("x") == b"new"


def test_an_upload_of_another_size_takes_the_place_of_an_older_one(store: ObjectStore) -> None:
    store.open_upload("x", 12 * MIB, PART_BYTES).send(2, bytes(2 * MIB))
    upload = store.open_upload("x", 3, PART_BYTES)
    upload.send(0, b"new")
    upload.finish()
    assert store.read("x") == b"new"


def test_unfinished_uploads_are_dropped_by_prefix(store: ObjectStore) -> None:
    for name in ("a/b/c", "a/b-c", "a/d", "b"):
        store.open_upload(name, 6 * MIB, PART_BYTES).send(1, bytes(MIB))
    store.drop_uploads("a/b")
    assert sorted(upload.name for upload in store.unfinished("")) == ["a/d", "b"]
    store.drop_uploads("a/b")
    store.drop_uploads("")
    assert list(store.unfinished("")) == []
    assert names(store) == []


def test_uploads_that_begin_and_end_beside_each_other_do_not_trip(tmp_path: Path) -> None:
    store = FileStore(tmp_path)

    def churn(number: int) -> None:
        for turn in range(50):
            store.open_upload(f"deep/er/{number}/{turn}", 1, PART_BYTES).send(0, b"x")
            store.drop_uploads(f"deep/er/{number}/")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(churn, range(4)))
    assert list((tmp_path / INCOMING).iterdir()) == []


def test_abandoned_parts_go_in_time(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    for name in ("m/old", "m/fresh"):
        store.open_upload(name, 1, PART_BYTES)
    os.utime(tmp_path / INCOMING / "parts" / "m" / "old", (0, 0))
    store.write("x", b"")
    assert [upload.name for upload in store.unfinished("")] == ["m/fresh"]


def test_failures_of_a_file_store_name_no_path(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "objects")
    store.write("a", b"1")
    with pytest.raises(StoreError, match=r"^object store: [A-Za-z ]+, at 'a/b'$"):
        store.write("a/b", b"2")
