"""A folder of weights on this machine's disks, read without following any link, from the root directory on."""

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import PurePath

from app.store.folders import MAX_FILES, FolderFile, RefusedEntry, SourceChanged, plain_name
from app.store.object_store import StoreError, check_range

MAX_DEPTH = 16
"""Folders within folders: each holds a descriptor open while it is listed."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PASSAGE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe that took the file's place must not block
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class LocalFolder:
    """A folder by its absolute path; that path may contain no link either, so it lies where it says."""

    def __init__(self, path: PurePath) -> None:
        self._path = path

    def files(self) -> list[FolderFile]:
        found: list[FolderFile] = []
        with _explained(self._path.name), self._opened() as folder, closing(_walk(folder, "")) as entries:
            for count, file in enumerate(entries, 1):
                if count > MAX_FILES:
                    raise RefusedEntry(".", f"a folder of more than {MAX_FILES:,} files")
                if file:
                    found.append(file)
        return sorted(found, key=lambda file: file.name)

    def find(self, name: str) -> FolderFile:
        """One file by its name. Raises RefusedEntry, or StoreError where there is none."""
        with _explained(plain_name(name)), self._opened() as folder:
            opened = _open_below(folder, name)
            try:
                found = os.fstat(opened)
            finally:
                os.close(opened)
        if not stat.S_ISREG(found.st_mode):
            raise RefusedEntry(name, _KINDS.get(stat.S_IFMT(found.st_mode), "a folder"))
        return FolderFile(name, found.st_size, _etag(found))

    def read(self, file: FolderFile, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        end = file.size_bytes if length is None else min(start + length, file.size_bytes)
        name = plain_name(file.name)
        with _explained(name):
            try:
                with self._opened() as folder:
                    opened = _open_below(folder, name)
            except (FileNotFoundError, NotADirectoryError, RefusedEntry):
                raise SourceChanged(name) from None
            try:
                _check_same(opened, file)
                data = _read(opened, start, max(end - start, 0))
                _check_same(opened, file)
                return data
            finally:
                os.close(opened)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        root = os.open("/", _PASSAGE)
        try:
            folder = _open_below(root, "/".join(self._path.parts[1:]) or ".", _FOLDER)
        except FileNotFoundError:
            raise StoreError(f"source: there is no folder {self._path.name!r}") from None
        except NotADirectoryError:
            raise StoreError(f"source: {self._path.name!r} is not a folder") from None
        finally:
            os.close(root)
        try:
            yield folder
        finally:
            os.close(folder)


def _walk(folder: int, prefix: str) -> Generator[FolderFile | None, None, None]:
    """The files below an open folder; None for each other entry, so that a caller can count them."""
    with os.scandir(folder) as scan:
        for entry in scan:
            if entry.name.startswith("."):
                yield None
                continue
            name = plain_name(prefix + entry.name)
            found = os.stat(entry.name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                yield FolderFile(name, found.st_size, _etag(found))
            elif stat.S_ISDIR(found.st_mode):
                if name.count("/") >= MAX_DEPTH:
                    raise RefusedEntry(name, f"more than {MAX_DEPTH} folders deep")
                yield None
                below = _open(folder, entry.name, _FOLDER)
                try:
                    yield from _walk(below, f"{name}/")
                finally:
                    os.close(below)
            else:
                raise RefusedEntry(name, _KINDS.get(stat.S_IFMT(found.st_mode), "not a file"))


def _open_below(folder: int, name: str, flags: int = _FILE) -> int:
    """Open what has this name below an open folder, part by part. Raises RefusedEntry for a link on the way."""
    *passages, last = name.split("/")
    here = os.dup(folder)
    try:
        for part in passages:
            deeper = _open(here, part, _PASSAGE)
            os.close(here)
            here = deeper
        return _open(here, last, flags)
    finally:
        os.close(here)


def _open(folder: int, name: str, flags: int) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError:  # a link is told by ELOOP or ENOTDIR, a socket by ENXIO
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise RefusedEntry(name, "a link") from None
        raise


def _read(file: int, start: int, length: int) -> bytes:
    data = os.pread(file, length, start)
    while len(data) < length and (more := os.pread(file, length - len(data), start + len(data))):
        data += more
    return data


def _check_same(opened: int, file: FolderFile) -> None:
    found = os.fstat(opened)
    if not stat.S_ISREG(found.st_mode) or _etag(found) != file.etag:
        raise SourceChanged(file.name)


def _etag(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Say what failed without the path on this machine."""
    try:
        yield
    except (StoreError, SourceChanged):
        raise
    except FileNotFoundError:
        raise StoreError(f"source: there is no file {name!r}") from None
    except OSError as error:
        raise StoreError(f"source: {error.strerror or type(error).__name__}, at {name!r}") from None
