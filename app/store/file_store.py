"""Objects as files under one folder: the object store of a single machine, or of a shared file system."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from app.store.object_store import (
    INCOMING,
    ObjectMissing,
    OnBytes,
    StoredObject,
    StoreError,
    check_name,
    check_prefix,
    check_range,
)

_CHUNK_BYTES = 4 << 20
_ABANDONED_S = 24 * 3600


class FileStore:
    """Objects as files under one folder. A name cannot be both an object and a folder of others."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._parts = root / INCOMING / "parts"

    def list(self, prefix: str) -> Iterator[StoredObject]:
        folder = check_prefix(prefix).rpartition("/")[0]
        for found in self._walk(folder):
            if found.name.startswith(prefix):
                yield found

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        with _explained(name), self._reading(name) as file:
            file.seek(start)
            there = max(os.fstat(file.fileno()).st_size - start, 0)  # read() would make room for all it is asked for
            return file.read(there if length is None else min(length, there))

    def write(self, name: str, data: bytes) -> None:
        with _explained(name), self._writing(name) as file:
            file.write(data)

    def upload(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        with path.open("rb") as source, self._writing(name) as target:
            _copy(source, target, on_bytes)

    def open_upload(self, name: str, size_bytes: int, part_bytes: int) -> "FilePartUpload":
        path = self._path(name)
        with _explained(name):
            (self._root / INCOMING).mkdir(parents=True, exist_ok=True)
            _sweep(self._root / INCOMING)
            return FilePartUpload(name, path, self._parts / name, size_bytes, part_bytes)

    def unfinished(self, prefix: str) -> Iterator[StoredObject]:
        for parent, _, names in os.walk(self._parts / check_prefix(prefix).rpartition("/")[0]):
            for path in (Path(parent, name) for name in names):
                name = path.relative_to(self._parts).as_posix()
                if name.startswith(prefix):
                    with suppress(FileNotFoundError):  # finished since
                        yield _stored(name, path.stat())

    def drop_uploads(self, prefix: str) -> None:
        for upload in self.unfinished(prefix):
            (self._parts / upload.name).unlink(missing_ok=True)
        folder = self._parts / prefix.rpartition("/")[0]
        for parent, _, _ in os.walk(folder, topdown=False):
            _remove_if_empty(Path(parent))
        while folder != self._parts.parent:
            _remove_if_empty(folder)
            folder = folder.parent

    def download(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        with self._reading(name) as source, arriving(path) as target:
            _copy(source, target, on_bytes)

    def delete(self, name: str) -> None:
        path = self._path(name)
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            path.unlink()
        with suppress(OSError):  # up to the first folder that still holds something
            for folder in path.relative_to(self._root).parents[:-1]:
                (self._root / folder).rmdir()

    def local_path(self, name: str) -> Path | None:
        path = self._path(name)
        return path if path.is_file() else None

    def _path(self, name: str) -> Path:
        return self._root / check_name(name)

    def _walk(self, folder: str) -> Iterator[StoredObject]:
        try:
            with os.scandir(self._root / folder) as scan:
                entries = [entry for entry in scan if folder or entry.name != INCOMING]
        except (FileNotFoundError, NotADirectoryError):
            return
        # '/' counts in a name's order: 'a-b' comes before 'a/b', and 'a/b' before 'a0'.
        entries.sort(key=lambda entry: f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name)
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(name)
            elif entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):  # deleted since
                    yield _stored(name, entry.stat(follow_symlinks=False))

    @contextmanager
    def _reading(self, name: str) -> Iterator[BinaryIO]:
        try:
            file = self._path(name).open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectMissing(name) from None
        with file:
            yield file

    @contextmanager
    def _writing(self, name: str) -> Iterator[BinaryIO]:
        path, incoming = self._path(name), self._root / INCOMING
        incoming.mkdir(parents=True, exist_ok=True)
        _sweep(incoming)
        with _replacing(path, incoming / secrets.token_hex(8)) as file:
            yield file


class FilePartUpload:
    """A file of its full size from the start, with holes where parts are missing; renamed when it is finished."""

    def __init__(self, name: str, path: Path, partial: Path, size_bytes: int, part_bytes: int) -> None:
        self._name = name
        self._path = path
        self._partial = partial
        self._part_bytes = part_bytes
        self._found = partial.exists()
        for attempts_left in reversed(range(10)):
            try:
                partial.parent.mkdir(parents=True, exist_ok=True)
                with partial.open("ab") as file:
                    file.truncate(size_bytes)
                break
            except (FileNotFoundError, FileExistsError):  # the folder was empty, and removed by another upload's end
                if not attempts_left:
                    raise

    def holds(self, number: int, data: bytes) -> bool:
        if not self._found:
            return False
        with _explained(self._name), self._partial.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), len(data), number * self._part_bytes) == data

    def send(self, number: int, data: bytes) -> None:
        left, at = memoryview(data), number * self._part_bytes
        with _explained(self._name), self._partial.open("r+b", buffering=0) as file:
            while left:
                written = os.pwrite(file.fileno(), left, at)
                left, at = left[written:], at + written

    def finish(self) -> None:
        with _explained(self._name):
            with self._partial.open("r+b") as file:
                os.fsync(file.fileno())
            _move(self._partial, self._path)


@contextmanager
def arriving(path: Path) -> Iterator[BinaryIO]:
    """A file that becomes `path` when the block ends well; until then it lies beside it, hidden."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path, path.with_name(f".{secrets.token_hex(8)}.part")) as file:
        yield file


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Say what failed without the path on this machine."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"object store: {error.strerror or type(error).__name__}, at {name!r}") from None


def _copy(source: BinaryIO, target: BinaryIO, on_bytes: OnBytes | None) -> None:
    while chunk := source.read(_CHUNK_BYTES):
        target.write(chunk)
        if on_bytes:
            on_bytes(len(chunk))


@contextmanager
def _replacing(path: Path, temporary: Path) -> Iterator[BinaryIO]:
    """A new file at `temporary` that is moved to `path`, safe against power loss, when the block ends well."""
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _move(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _move(source: Path, path: Path) -> None:
    for attempts_left in reversed(range(10)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            source.replace(path)
            break
        except (FileNotFoundError, FileExistsError):
            # A delete beside us has just removed the folder, empty as it was; mkdir says "exists" when that happens
            # between its two looks.
            if not attempts_left:
                raise
    with suppress(FileNotFoundError):  # deleted since
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _sweep(incoming: Path) -> None:
    """Remove what writers that died have left behind."""
    for parent, _, names in os.walk(incoming):
        for stray in (Path(parent, name) for name in names):
            with suppress(FileNotFoundError):
                if stray.stat().st_mtime < time.time() - _ABANDONED_S:
                    stray.unlink()


def _stored(name: str, found: os.stat_result) -> StoredObject:
    return StoredObject(name, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
