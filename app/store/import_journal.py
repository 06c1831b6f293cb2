"""What of an import has arrived, noted in the object store for the attempt after a crash."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from pydantic import BaseModel, ConfigDict, ValidationError

from app.store.folders import FolderFile
from app.store.object_store import ObjectMissing, ObjectStore

SAVE_PERIOD_S = 1.0


class _Arrived(BaseModel):
    """A file that was read to its end, and sent if it was to be."""

    model_config = ConfigDict(frozen=True)

    name: str
    size_bytes: int
    etag: str
    sha256: str


class _Notes(BaseModel):
    files: tuple[_Arrived, ...] = ()


class Journal:
    """What has arrived, in an object of the store. It spares reading files again; without it nothing is sent twice."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._name = name
        self._files: dict[str, _Arrived] = {}
        self._saved_at = time.monotonic()
        self._lock = threading.Lock()

    def load(self) -> None:
        with suppress(ObjectMissing, ValidationError):
            notes = _Notes.model_validate_json(self._store.read(self._name))
            self._files = {file.name: file for file in notes.files}

    def keep_only(self, listing: Sequence[FolderFile]) -> bool:
        """Forget what the listing has no longer; whether there was any.

        If so, save before anything is sent: an old journal must not vouch for it.
        """
        kept = {file.name: self._files[file.name] for file in listing if self.sha256(file)}
        forgot = kept != self._files
        self._files = kept
        return forgot

    def sha256(self, file: FolderFile) -> str | None:
        """The hash of just this file, when it is known."""
        noted = self._files.get(file.name)
        same = noted and (noted.size_bytes, noted.etag) == (file.size_bytes, file.etag)
        return noted.sha256 if noted and same else None

    def add(self, file: FolderFile, sha256: str) -> None:
        with self._lock:
            self._files[file.name] = _Arrived(name=file.name, size_bytes=file.size_bytes, etag=file.etag, sha256=sha256)

    def forget(self, name: str) -> None:
        with self._lock:
            self._files.pop(name, None)

    def save_when_due(self) -> None:
        if time.monotonic() - self._saved_at >= SAVE_PERIOD_S:
            self.save()

    def save(self) -> None:
        with self._lock:
            self._saved_at = time.monotonic()
            self._store.write(self._name, _Notes(files=tuple(self._files.values())).model_dump_json().encode())

    def remove(self) -> None:
        self._store.delete(self._name)
