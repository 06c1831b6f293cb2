"""A folder of weights to be read, wherever it lies: a user's bucket, a local folder, a version in our own store."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from app.store.layout import Manifest, read_manifest
from app.store.object_store import ObjectMissing, ObjectStore, StoreError, check_name

MAX_FILES = 10_000
"""More than any model has; a folder with more is not one."""


@dataclass(frozen=True, slots=True)
class FolderFile:
    """One file of a folder; `name` is relative to the folder, with '/' between its parts."""

    name: str
    size_bytes: int
    etag: str
    """Another content has another etag: S3's own, or size, time and inode of a local file."""


class Folder(Protocol):
    """Files by name, to be read by ranges."""

    def files(self) -> list[FolderFile]:
        """All files, subfolders included and hidden ones left out, sorted by name.

        Raises RefusedEntry, or StoreError when it cannot say.
        """

    def read(self, file: FolderFile, start: int = 0, length: int | None = None) -> bytes:
        """At most `length` bytes from `start`. Raises SourceChanged when it is no longer that file, StoreError."""


class RefusedEntry(ValueError):
    """Something in the folder that is not a plain file with a plain name: a link, a device, '..', NUL."""

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(name, kind)
        self.name, self.kind = name, kind

    def __str__(self) -> str:
        return f"{self.name!r} is {self.kind}"


class SourceChanged(OSError):
    """A file was replaced or removed while the folder was being read."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name!r} was replaced or removed meanwhile"


class StoreFolder:
    """A published version: the files that its manifest names, each with its sha256 for an etag."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def files(self) -> list[FolderFile]:
        found = [FolderFile(file.name, file.size_bytes, file.sha256) for file in self._manifest.files]
        return sorted(found, key=lambda file: file.name)

    def read(self, file: FolderFile, start: int = 0, length: int | None = None) -> bytes:
        try:
            return self._store.read(self._manifest.files_at + file.name, start, length)
        except ObjectMissing:
            raise SourceChanged(file.name) from None

    @cached_property
    def _manifest(self) -> Manifest:
        try:
            manifest = read_manifest(self._store, self._prefix)
        except ValueError as error:
            raise StoreError(str(error)) from None
        if manifest is None:
            raise StoreError(f"nothing is published at {self._prefix}")
        return manifest


def plain_name(name: str) -> str:
    """The name, if a file that people bring may have it. Raises RefusedEntry."""
    try:
        check_name(name)
    except ValueError:
        raise RefusedEntry(name, "not a plain name") from None
    if any(character < " " or character == "\x7f" for character in name):
        raise RefusedEntry(name, "not a plain name")
    return name


def is_hidden(name: str) -> bool:
    """Whether the file, or a folder it is in, begins with a dot."""
    return any(part.startswith(".") for part in name.split("/"))


def fingerprint(folder: Folder) -> str:
    """Of the folder's listing. Raises as `files` does."""
    return fingerprint_of(folder.files())


def fingerprint_of(files: Iterable[FolderFile]) -> str:
    """Equal for the same listing, sorted by name: sha256 over names, sizes and etags."""
    listing = [(file.name, file.size_bytes, file.etag) for file in files]
    return hashlib.sha256(json.dumps(listing, separators=(",", ":")).encode()).hexdigest()
