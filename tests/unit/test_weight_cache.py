import fcntl
import hashlib
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import pytest

from app.core.errors import EngineStartError
from app.store.file_store import FileStore
from app.store.layout import MANIFEST, Manifest, ManifestFile, read_manifest, version_prefix
from app.store.object_store import OnBytes, StoredObject, StoreError, StoreUnavailable
from app.unit import weight_cache, weight_cache_checks, weight_cache_files, weight_cache_progress
from app.unit.weight_cache import ATTEMPTS, Weights, fetch, progress
from app.unit.weight_cache_entry import Entry
from app.unit.weight_cache_progress import Progress
from tests.unit.weight_units import WAIT_S, FarStore, Unit

KIB = 1 << 10
FILES = {"config.json": b"{}", "model.safetensors": random.Random(1).randbytes(64 * KIB), "sub/tokenizer.json": b"[]"}
NAMES = sorted(name.rpartition("/")[2] for name in FILES)
PREFIX = version_prefix("m-1", "BF16")


@pytest.fixture
def far(tmp_path: Path) -> FarStore:
    """Holds one published version."""
    store = FarStore(tmp_path / "objects")
    store.publish("m-1", FILES)
    return store


@pytest.fixture
def start_unit(cache: Path) -> Iterator[Callable[..., Unit]]:
    """Starts units on one node; all are ended in the end."""
    units: list[Unit] = []

    def start(store: FarStore, prefix: str = PREFIX, cache_bytes: int | None = None) -> Unit:
        units.append(Unit(store, prefix, cache, cache_bytes))
        return units[-1]

    yield start
    for unit in units:
        unit.kill()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that this process has read through."""
    names: list[str] = []
    digest = hashlib.file_digest

    def note(file: IO[bytes], algorithm: Any) -> Any:
        names.append(Path(file.name).name)
        return digest(file, algorithm)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", note)
    return names


def fetch_once(store: FileStore, cache: Path, prefix: str = PREFIX, **options: Any) -> Path:
    """As a unit that ends at once."""
    with closing(fetch(store, prefix, cache, **options)) as weights:
        return weights.folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change_in_place(path: Path) -> None:
    """One byte, and the time as it was."""
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(stat.st_size // 2)
        file.write(b"X")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    while path.stat().st_ctime_ns == stat.st_ctime_ns:  # the clock of files ticks every few milliseconds
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


# What a unit gets.


def test_a_local_store_is_read_in_place(near: FileStore, cache: Path, tmp_path: Path) -> None:
    folder = fetch_once(near, cache)
    assert folder == tmp_path / "objects" / PREFIX
    assert {name: data for name, data in content(folder).items() if name != MANIFEST} == FILES
    assert not list(cache.rglob("*.safetensors"))


def test_another_store_is_downloaded_once(far: FarStore, cache: Path) -> None:
    folder = fetch_once(far, cache)
    assert folder.is_relative_to(cache)
    assert content(folder) == FILES
    assert fetch_once(far, cache) == folder
    assert sorted(far.fetched) == NAMES


def test_a_folder_of_the_users_own_is_not_served_where_it_may_change(near: FileStore, cache: Path) -> None:
    for name, data in FILES.items():
        near.write(f"mine/{name}", data)
    near.write("mine/not-named.safetensors", b"")
    own = read_manifest(near, PREFIX)
    assert own is not None
    prefix = version_prefix("m-2", "BF16")
    near.write(
        prefix + MANIFEST,
        own.model_copy(update={"model_id": "m-2", "files_prefix": "mine/"}).model_dump_json().encode(),
    )
    folder = fetch_once(near, cache, prefix)
    assert content(folder) == FILES
    near.write("mine/config.json", b"[]")
    assert content(fetch_once(near, cache, prefix)) == FILES


def test_the_same_files_under_another_name_are_downloaded_once(far: FarStore, cache: Path) -> None:
    far.publish("m-2", FILES)
    assert fetch_once(far, cache) == fetch_once(far, cache, version_prefix("m-2", "BF16"))
    assert sorted(far.fetched) == NAMES


def test_processes_that_start_together_download_once(
    tmp_path: Path, far: FarStore, start_unit: Callable[..., Unit]
) -> None:
    slow = FarStore(tmp_path / "objects", pause_s=0.05)
    units = [start_unit(slow) for _ in range(8)]
    folders = {unit.answer() for unit in units}
    assert len(folders) == 1
    assert content(Path(folders.pop())) == FILES
    assert sorted(far.fetched) == NAMES


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", ["near", "far"])
def test_a_missing_file_is_named(request: pytest.FixtureRequest, where: str, name: str, cache: Path) -> None:
    store: FileStore = request.getfixturevalue(where)
    store.delete(PREFIX + name)
    with pytest.raises(EngineStartError, match=f"{name} is missing"):
        fetch(store, PREFIX, cache)


@pytest.mark.parametrize("where", ["near", "far"])
def test_a_file_of_another_size_is_named(request: pytest.FixtureRequest, where: str, cache: Path) -> None:
    store: FileStore = request.getfixturevalue(where)
    store.write(PREFIX + "model.safetensors", bytes(999))
    with pytest.raises(EngineStartError, match=r"model\.safetensors has 999 bytes, its manifest says 65536"):
        fetch(store, PREFIX, cache)


@pytest.mark.parametrize("where", ["near", "far"])
def test_a_file_of_other_content_is_named(request: pytest.FixtureRequest, where: str, cache: Path) -> None:
    store: FileStore = request.getfixturevalue(where)
    store.write(PREFIX + "model.safetensors", bytes(64 * KIB))
    with pytest.raises(EngineStartError, match=r"model\.safetensors is not what its manifest says"):
        fetch(store, PREFIX, cache)


def test_weights_that_were_never_published_do_not_exist(near: FileStore, cache: Path) -> None:
    with pytest.raises(EngineStartError, match="no published weights at models/m-2/BF16/"):
        fetch(near, version_prefix("m-2", "BF16"), cache)


@pytest.mark.parametrize("where", ["near", "far"])
def test_weights_are_those_that_were_named(request: pytest.FixtureRequest, where: str, cache: Path) -> None:
    store: FileStore = request.getfixturevalue(where)
    named = read_manifest(store, PREFIX)
    assert named
    assert fetch_once(store, cache, digest=named.digest)
    other = named.model_copy(update={"files": named.files[:1]})
    store.write(PREFIX + MANIFEST, other.model_dump_json().encode())
    with pytest.raises(EngineStartError, match="the weights changed since this revision was made"):
        fetch(store, PREFIX, cache, digest=named.digest)
    assert fetch_once(store, cache, digest=other.digest)


def test_a_broken_manifest_is_a_reason(near: FileStore, cache: Path) -> None:
    near.write(PREFIX + MANIFEST, b"{")
    with pytest.raises(EngineStartError, match=r"manifest\.json"):
        fetch(near, PREFIX, cache)


def test_a_cache_that_cannot_be_written_is_a_reason(far: FarStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineStartError, match="the weight cache cannot be used: Not a directory"):
        fetch(far, PREFIX, tmp_path / "file")


# Size and sha256.


@pytest.mark.parametrize("where", ["near", "far"])
def test_files_are_read_through_once_as_long_as_they_stay_as_they_are(
    request: pytest.FixtureRequest, where: str, cache: Path, hashed: list[str]
) -> None:
    store: FileStore = request.getfixturevalue(where)
    hashed.clear()
    folder = fetch_once(store, cache)
    assert sorted(hashed) == NAMES
    fetch_once(store, cache)
    assert sorted(hashed) == NAMES
    os.utime(folder / "model.safetensors")
    fetch_once(store, cache)
    assert sorted(hashed) == sorted([*NAMES, "model.safetensors"])


def test_what_was_checked_may_be_lost(near: FileStore, cache: Path, hashed: list[str]) -> None:
    fetch_once(near, cache)
    hashed.clear()
    for notes in cache.rglob("checked.json"):
        notes.write_bytes(b"")  # as after a power loss
    fetch_once(near, cache)
    assert sorted(hashed) == NAMES


def test_a_change_in_place_shows_at_the_next_start(near: FileStore, cache: Path) -> None:
    folder = fetch_once(near, cache)
    change_in_place(folder / "model.safetensors")
    with pytest.raises(EngineStartError, match=r"model\.safetensors is not what its manifest says"):
        fetch(near, PREFIX, cache)


def test_all_that_changed_in_place_is_named(near: FileStore, cache: Path) -> None:
    near.write(PREFIX + "model.safetensors", b"")
    near.delete(PREFIX + "config.json")
    with pytest.raises(EngineStartError, match=r"config\.json is missing.*; model\.safetensors has 0 bytes"):
        fetch(near, PREFIX, cache)


def test_a_change_in_the_cache_is_mended(far: FarStore, cache: Path) -> None:
    folder = fetch_once(far, cache)
    change_in_place(folder / "model.safetensors")
    (folder / "config.json").unlink()
    assert content(fetch_once(far, cache)) == FILES
    assert sorted(far.fetched) == sorted([*NAMES, "config.json", "model.safetensors"])


class Faulty(FarStore):
    """Has trouble with one file, so many times."""

    def __init__(self, root: Path, times: int, error: OSError | None = None, pause_s: float = 0.0):
        super().__init__(root, pause_s)
        self._times = times
        self._error = error

    def content(self, name: str) -> bytes:
        data = super().content(name)
        if name.endswith("model.safetensors") and self._times:
            self._times -= 1
            if self._error:
                raise self._error
            return data[:-1] + bytes([data[-1] ^ 1])
        return data


TROUBLE = [
    (None, r"model\.safetensors is not what its manifest says"),
    (StoreError("object store: SlowDown, at 'x'"), r"model\.safetensors could not be fetched: object store: SlowDown"),
    (OSError(28, "No space left on device", "/secret/place"), r"model\.safetensors could not be fetched: No space"),
]


@pytest.mark.parametrize(("error", "reason"), TROUBLE)
def test_a_file_that_arrives_wrong_is_fetched_once_more(
    far: FarStore, tmp_path: Path, cache: Path, error: OSError | None, reason: str
) -> None:
    assert content(fetch_once(Faulty(tmp_path / "objects", 1, error), cache)) == FILES
    assert sorted(far.fetched) == sorted([*NAMES, "model.safetensors"])


@pytest.mark.parametrize(("error", "reason"), TROUBLE)
def test_a_file_that_stays_wrong_is_named(
    far: FarStore, tmp_path: Path, cache: Path, error: OSError | None, reason: str
) -> None:
    with pytest.raises(EngineStartError, match=reason) as refused:
        fetch(Faulty(tmp_path / "objects", ATTEMPTS, error), PREFIX, cache)
    assert "secret" not in str(refused.value)
    assert far.fetched.count("model.safetensors") == ATTEMPTS
    assert not list(cache.rglob("model.safetensors"))
    assert content(fetch_once(far, cache)) == FILES


@pytest.mark.parametrize(("times", "ends_well"), [(3, True), (3 + ATTEMPTS, False)])
def test_a_store_that_may_come_back_is_waited_for(
    far: FarStore, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, times: int, ends_well: bool
) -> None:
    monkeypatch.setattr(weight_cache, "PAUSES_S", (0.0, 0.0, 0.0))
    store = Faulty(tmp_path / "objects", times, StoreUnavailable("object store: 503, at 'x'"))
    if ends_well:
        assert content(fetch_once(store, cache)) == FILES
    else:
        with pytest.raises(EngineStartError, match=r"model\.safetensors could not be fetched: object store: 503"):
            fetch(store, PREFIX, cache)
    assert far.fetched.count("model.safetensors") == min(times + 1, 3 + ATTEMPTS)


def test_one_file_that_cannot_be_had_stops_the_others(far: FarStore, tmp_path: Path, cache: Path) -> None:
    files = {f"{number}.safetensors": bytes([number]) * (256 * KIB) for number in range(20)}
    manifest = far.publish("m-2", {"model.safetensors": bytes(300 * KIB), **files})
    slow = Faulty(tmp_path / "objects", ATTEMPTS, StoreError("object store: AccessDenied, at 'x'"), pause_s=0.05)
    with pytest.raises(EngineStartError, match=r"model\.safetensors could not be fetched: object store: AccessDenied"):
        fetch(slow, manifest.prefix, cache)
    assert len(far.fetched) < 10
    assert not list(cache.rglob("*.safetensors"))


def test_nothing_is_removed_for_what_cannot_be_had(far: FarStore, cache: Path) -> None:
    fetch_once(far, cache)
    manifest = far.publish("m-2", {"model.safetensors": bytes(64 * KIB)})
    far.delete(f"{manifest.prefix}model.safetensors")
    with pytest.raises(EngineStartError, match=r"model\.safetensors is missing from the object store"):
        fetch(far, manifest.prefix, cache, cache_bytes=100 * KIB)
    assert content(fetch_once(far, cache)) == FILES
    assert sorted(far.fetched) == NAMES


# What a process that died has left.


def test_what_a_download_has_left_is_used_as_far_as_it_is_sound(far: FarStore, cache: Path) -> None:
    files = {f"{number}.safetensors": random.Random(number).randbytes(32 * KIB) for number in range(5)}
    manifest = far.publish("m-2", files)
    left = cache / manifest.digest / "files"
    left.mkdir(parents=True)
    (left / "0.safetensors").write_bytes(files["0.safetensors"])
    (left / "1.safetensors").write_bytes(bytes(32 * KIB))
    (left / "2.safetensors").write_bytes(files["2.safetensors"][:-1])
    (left / ".abc.part").write_bytes(bytes(99))
    (left / "stray").mkdir()
    (left / "stray" / "file").touch()
    assert content(fetch_once(far, cache, manifest.prefix)) == files
    assert sorted(far.fetched) == ["1.safetensors", "2.safetensors", "3.safetensors", "4.safetensors"]


def test_kills_at_any_moment_cost_no_file_that_was_whole(
    far: FarStore, tmp_path: Path, cache: Path, start_unit: Callable[..., Unit]
) -> None:
    """Each round fetches what does not fit beside the round before, so that removals are cut off too."""
    moments = random.Random(20)
    slow = FarStore(tmp_path / "objects", pause_s=0.01)
    versions = []
    for model in "ab":
        data = random.Random(model)
        files = {f"{number}.safetensors": data.randbytes(number * 16 * KIB) for number in range(1, 10)}
        versions.append((far.publish(f"m-{model}", files), files))
    bound = int(versions[0][0].total_bytes * 1.5)
    cut_off = 0
    for turn in range(6):
        manifest, files = versions[turn % 2]
        for _ in range(8):
            unit = start_unit(slow, manifest.prefix, bound)
            unit.wait_until_begun()
            time.sleep(moments.uniform(0.0, 0.12))
            unit.kill()
            whole = sound_files(cache / manifest.digest / "files", files)
            cut_off += 0 < len(whole) < len(files)
            before = len(far.fetched)
        unit = start_unit(slow, manifest.prefix, bound)
        assert content(Path(unit.answer())) == files
        assert sorted(far.fetched[before:]) == sorted(files.keys() - whole)
        unit.end()
        on_disk = sum(Entry(path).on_disk_bytes() for path in cache.iterdir() if path.is_dir())
        assert on_disk <= bound + 64 * KIB
    assert cut_off >= 6


def sound_files(folder: Path, files: dict[str, bytes]) -> set[str]:
    return {name for name, data in files.items() if (folder / name).exists() and (folder / name).read_bytes() == data}


# Room.


@pytest.fixture
def versions(far: FarStore) -> dict[str, Manifest]:
    """Four versions of 256 KiB each; of two and a half there is room."""
    return {model: far.publish(model, {"model.safetensors": model.encode() * (256 * KIB)}) for model in "abcd"}


ROOM = 640 * KIB


def cached(cache: Path, versions: dict[str, Manifest]) -> set[str]:
    return {
        model
        for model, manifest in versions.items()
        if (cache / manifest.digest / "files" / "model.safetensors").exists()
    }


def test_what_was_used_longest_ago_goes_first(far: FarStore, cache: Path, versions: dict[str, Manifest]) -> None:
    for model in "abac":
        fetch_once(far, cache, versions[model].prefix, cache_bytes=ROOM)
    assert cached(cache, versions) == {"a", "c"}
    fetch_once(far, cache, versions["d"].prefix, cache_bytes=ROOM)
    assert cached(cache, versions) == {"c", "d"}


def test_to_be_in_use_counts_as_being_used(far: FarStore, cache: Path, versions: dict[str, Manifest]) -> None:
    long_used = fetch(far, versions["a"].prefix, cache)
    fetch_once(far, cache, versions["b"].prefix)
    long_used.close()
    fetch_once(far, cache, versions["c"].prefix, cache_bytes=ROOM)
    assert cached(cache, versions) == {"a", "c"}


def test_to_be_seen_in_use_counts_as_being_used(
    far: FarStore, cache: Path, versions: dict[str, Manifest], start_unit: Callable[..., Unit]
) -> None:
    """A unit that is killed says nothing of when it last used its weights."""
    unit = start_unit(far, versions["a"].prefix)
    unit.answer()
    for model in "bcd":
        fetch_once(far, cache, versions[model].prefix, cache_bytes=ROOM + 256 * KIB)
    unit.kill()
    fetch_once(far, cache, versions["b"].prefix, cache_bytes=ROOM + 256 * KIB)
    assert cached(cache, versions) == {"a", "b", "d"}


def test_no_more_goes_than_must(far: FarStore, cache: Path, versions: dict[str, Manifest]) -> None:
    for model in "abc":
        fetch_once(far, cache, versions[model].prefix)
    fetch_once(far, cache, versions["d"].prefix, cache_bytes=ROOM + 256 * KIB)
    assert cached(cache, versions) == {"b", "c", "d"}


def test_what_was_compiled_goes_with_its_files(far: FarStore, cache: Path, versions: dict[str, Manifest]) -> None:
    for model in "ab":
        weights = fetch(far, versions[model].prefix, cache)
        (weights.compiled / "deep").mkdir(parents=True)
        (weights.compiled / "deep" / "kernel").write_bytes(b"x" * 128 * KIB)
        weights.close()
    fetch_once(far, cache, versions["a"].prefix, cache_bytes=3 * 256 * KIB)
    assert (weights.compiled / "deep" / "kernel").exists()  # nothing has to go for what is here
    fetch_once(far, cache, versions["c"].prefix, cache_bytes=3 * 256 * KIB)  # b is what was used longest ago
    assert not weights.compiled.exists()
    assert cached(cache, versions) == {"a", "c"}


def test_what_is_here_needs_no_room(far: FarStore, cache: Path, versions: dict[str, Manifest]) -> None:
    for model in "abc":
        fetch_once(far, cache, versions[model].prefix)
    fetch_once(far, cache, versions["a"].prefix, cache_bytes=ROOM)
    assert cached(cache, versions) == {"a", "b", "c"}


def test_weights_in_use_never_go(
    far: FarStore, cache: Path, versions: dict[str, Manifest], start_unit: Callable[..., Unit]
) -> None:
    first, second = (start_unit(far, versions["a"].prefix) for _ in range(2))
    folder = Path(first.answer())
    assert second.answer() == folder
    for model in "bcb":
        fetch_once(far, cache, versions[model].prefix, cache_bytes=ROOM)
        assert cached(cache, versions) == {"a", model}
    other = start_unit(far, versions["b"].prefix, ROOM)
    other.answer()
    first.kill()

    refused = start_unit(far, versions["c"].prefix, ROOM)
    assert refused.answer() == (
        "the weights take 0.2 MiB, and weights in use take 0.5 MiB of the 0.6 MiB that this node's weight cache may "
        "hold: stop an endpoint, give the disk more room or raise MODELUNIT_CACHE_BYTES"
    )
    assert cached(cache, versions) == {"a", "b"}
    assert content(folder) == {"model.safetensors": b"a" * (256 * KIB)}

    second.kill()  # the last that used it
    assert Path(start_unit(far, versions["c"].prefix, ROOM).answer()).is_dir()
    assert cached(cache, versions) == {"b", "c"}


def test_what_is_mapped_outlives_its_removal(far: FarStore, cache: Path, versions: dict[str, Manifest]) -> None:
    """An engine may live a moment longer than its unit."""
    with (fetch_once(far, cache, versions["a"].prefix) / "model.safetensors").open("rb") as engine:
        for model in "bc":
            fetch_once(far, cache, versions[model].prefix, cache_bytes=ROOM)
        assert cached(cache, versions) == {"b", "c"}
        assert engine.read() == b"a" * (256 * KIB)


def test_room_that_can_never_be_had_is_refused_at_once(
    far: FarStore, cache: Path, versions: dict[str, Manifest]
) -> None:
    fetch_once(far, cache, versions["a"].prefix)
    before = far.fetched
    with pytest.raises(EngineStartError, match=r"take 0\.2 MiB, .* may hold 0\.1 MiB: .* raise MODELUNIT_CACHE_BYTES"):
        fetch(far, versions["b"].prefix, cache, cache_bytes=100 * KIB)
    assert far.fetched == before
    assert cached(cache, versions) == {"a"}


class Boundless(FarStore):
    """Says of every object that it is huge."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        for stored in super().list(prefix):
            yield StoredObject(stored.name, 1 << 60)


@pytest.mark.parametrize("cache_bytes", [None, 1 << 61])
def test_the_disk_is_a_bound_too(tmp_path: Path, cache: Path, cache_bytes: int | None) -> None:
    far = Boundless(tmp_path / "objects")
    huge = Manifest(
        model_id="m-1",
        name="m",
        base_model="b",
        precision="BF16",
        files=(ManifestFile(name="model.safetensors", size_bytes=1 << 60, sha256="0" * 64),),
    )
    far.write(PREFIX + "model.safetensors", b"")
    far.write(PREFIX + MANIFEST, huge.model_dump_json().encode())
    with pytest.raises(EngineStartError, match=r"take 1073741824\.0 GiB, and this node's weight cache may hold"):
        fetch(far, PREFIX, cache, cache_bytes=cache_bytes)
    assert far.fetched == []


def test_what_an_older_cache_has_left_goes_first(far: FarStore, cache: Path, versions: dict[str, Manifest]) -> None:
    fetch_once(far, cache, versions["a"].prefix)
    for name in ("0" * 64, "0" * 64 + ".partial"):
        (cache / name / "sub").mkdir(parents=True)
        (cache / name / "sub" / "model.safetensors").write_bytes(bytes(256 * KIB))
    fetch_once(far, cache, versions["b"].prefix)
    fetch_once(far, cache, versions["c"].prefix, cache_bytes=ROOM + 256 * KIB)
    assert cached(cache, versions) == {"a", "b", "c"}
    assert not list(cache.glob("0*/sub"))


class Gated(FarStore):
    """Begins with a file when told to."""

    def __init__(self, root: Path):
        super().__init__(root)
        self.asked, self.allowed = threading.Event(), threading.Event()

    def download(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        self.asked.set()
        assert self.allowed.wait(WAIT_S)
        super().download(name, path, on_bytes)


@pytest.fixture
def gated(tmp_path: Path, far: FarStore) -> Gated:
    return Gated(tmp_path / "objects")


@pytest.fixture
def fetch_gated(gated: Gated, cache: Path) -> Iterator[Callable[[str], Any]]:
    """Begins to fetch and returns once the store was asked."""
    with ThreadPoolExecutor(1) as thread:

        def begin(prefix: str) -> Any:
            fetching = thread.submit(fetch, gated, prefix, cache, cache_bytes=ROOM)
            assert gated.asked.wait(WAIT_S)
            return fetching

        yield begin
        gated.allowed.set()


def test_what_is_on_its_way_has_its_room(
    far: FarStore, gated: Gated, fetch_gated: Callable[[str], Any], cache: Path, versions: dict[str, Manifest]
) -> None:
    fetch_once(far, cache, versions["a"].prefix)
    coming = fetch_gated(versions["b"].prefix)
    fetch_once(far, cache, versions["c"].prefix, cache_bytes=ROOM)
    assert cached(cache, versions) == {"c"}
    with (
        closing(fetch(far, versions["c"].prefix, cache)),
        pytest.raises(EngineStartError, match=r"weights in use take 0\.5 MiB"),
    ):
        fetch(far, versions["d"].prefix, cache, cache_bytes=ROOM)
    gated.allowed.set()
    coming.result(WAIT_S).close()
    assert cached(cache, versions) == {"b", "c"}


# Waiting, and being told.


def test_a_wait_ends_with_what_is_known(
    far: FarStore, gated: Gated, fetch_gated: Callable[[str], Any], cache: Path
) -> None:
    coming = fetch_gated(PREFIX)
    with pytest.raises(EngineStartError, match=r"fetching the same weights for 0 s; 0\.0 of 0\.1 MiB is here"):
        fetch(far, PREFIX, cache, wait_s=0.2)
    gated.allowed.set()
    assert content(coming.result(WAIT_S).folder) == FILES


def test_a_wait_for_room_ends(far: FarStore, cache: Path) -> None:
    cache.mkdir()
    with (
        closing(weight_cache_files.lock(cache / "room.lock", 0)),
        pytest.raises(EngineStartError, match="room in the weight cache was being made by another for 0 s"),
    ):
        fetch(far, PREFIX, cache, wait_s=0.2)
    assert content(fetch_once(far, cache)) == FILES


def test_progress_is_there_to_be_read(
    far: FarStore,
    gated: Gated,
    fetch_gated: Callable[[str], Any],
    cache: Path,
) -> None:
    total = sum(len(data) for data in FILES.values())
    digest = far.publish("m-1", FILES).digest
    assert progress(cache, digest) is None
    coming = fetch_gated(PREFIX)
    assert progress(cache, digest) == Progress(done_bytes=0, total_bytes=total, fetching=True)
    gated.allowed.set()
    coming.result(WAIT_S).close()
    assert progress(cache, digest) == Progress(done_bytes=total, total_bytes=total, fetching=True)


@pytest.mark.parametrize("where", ["near", "far"])
def test_progress_tells_checking_from_fetching(
    request: pytest.FixtureRequest, where: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: FileStore = request.getfixturevalue(where)
    manifest = read_manifest(store, PREFIX)
    assert manifest
    fetch_once(store, cache)
    seen: list[Progress | None] = []
    monkeypatch.setattr(weight_cache_checks.Checks, "problem", lambda *_: seen.append(progress(cache, manifest.digest)))
    fetch_once(store, cache)
    assert [there and there.fetching for there in seen] == [False] * len(FILES)


def test_progress_grows(far: FarStore, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_cache_progress, "PERIOD_S", 0.0)
    digest = far.publish("m-1", FILES).digest
    seen: list[int] = []

    class Watched(FarStore):
        def content(self, name: str) -> bytes:
            seen.append(there.done_bytes if (there := progress(cache, digest)) else -1)
            return super().content(name)

    fetch_once(Watched(far._root), cache)
    assert 0 <= min(seen) <= max(seen) < sum(len(data) for data in FILES.values())


def test_progress_is_said_in_units_people_read() -> None:
    assert str(Progress(done_bytes=12 << 30, total_bytes=130 << 30)) == "12.0 of 130.0 GiB"
    assert str(Progress(done_bytes=1 << 20, total_bytes=5 << 20)) == "1.0 of 5.0 MiB"
    assert str(Progress(done_bytes=1 << 29, total_bytes=1 << 30)) == "0.5 of 1.0 GiB"


def test_closing_twice_is_fine_and_frees(far: FarStore, cache: Path) -> None:
    weights: Weights = fetch(far, PREFIX, cache)
    use = weights.folder.parent / "use"
    with use.open("ab") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    weights.close()
    weights.close()
    with use.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_reasons_name_no_folder_of_this_machine(far: FarStore, cache: Path, tmp_path: Path) -> None:
    far.write(PREFIX + "model.safetensors", b"")
    with pytest.raises(EngineStartError) as refused:
        fetch(far, PREFIX, cache)
    assert not re.search(re.escape(str(tmp_path)), str(refused.value))
