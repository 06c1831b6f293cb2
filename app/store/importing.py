"""Bringing a folder of weights into the platform's store as a version; killed at any byte, it goes on where it was."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from app.core.specs import Precision
from app.store.copying import PART_BYTES, Compared, Copying, FileCopy, Nowhere, Written
from app.store.folders import Folder, FolderFile, RefusedEntry, SourceChanged
from app.store.import_journal import Journal
from app.store.layout import (
    MANIFEST,
    MODELS,
    Manifest,
    ManifestFile,
    read_manifest,
    sizes,
    version_prefix,
    write_manifest,
)
from app.store.object_store import ObjectStore, PartUpload, StoreError, check_name

CONCURRENCY = 8
PATIENCE_S = 60.0

OnProgress = Callable[[int, int], None]
"""Told how many bytes are done, and how many there are; by one thread at a time. What it raises ends the work."""


def import_folder(
    folder: Folder,
    store: ObjectStore,
    *,
    model_id: str,
    name: str,
    base_model: str,
    precision: Precision,
    journal: str,
    wanted: Callable[[FolderFile], bool],
    files_prefix: str | None = None,
    on_progress: OnProgress | None = None,
    concurrency: int = CONCURRENCY,
    part_bytes: int = PART_BYTES,
    patience_s: float = PATIENCE_S,
) -> Manifest:
    """Copy the wanted files into the store as a version, the manifest last. What is published there already stays.

    With `files_prefix`, which says that the store itself has the folder there, the files are only read, and stay.

    Failed or killed, it can be run again and sends only what is missing; `journal` names the object that helps it.
    Takes up to `concurrency` times `part_bytes` (5 MiB at least, for S3) of memory. Failures that may pass are waited
    out for `patience_s` each. Raises RefusedEntry (also for a `files_prefix` of published versions), SourceChanged
    when files changed since it began, StoreError.
    """
    if files_prefix is not None and files_prefix.startswith(MODELS):
        raise RefusedEntry(files_prefix, "where published versions lie")
    prefix = version_prefix(model_id, precision)
    run = _Run(folder, store, journal, wanted, on_progress, concurrency, part_bytes, patience_s)
    with run.resumable():
        if published := run.published(prefix):
            return published
        files = run.copy_to(prefix) if files_prefix is None else run.hash()
        run.check_listing()
        if files_prefix is None:
            run.tidy(prefix)
        else:
            run.check_there(files_prefix)
        manifest = Manifest(
            model_id=model_id,
            name=name,
            base_model=base_model,
            precision=precision,
            files=files,
            files_prefix=files_prefix,
        )
        return run.publish(manifest)


class _Run:
    """One attempt."""

    def __init__(
        self,
        folder: Folder,
        store: ObjectStore,
        journal: str,
        wanted: Callable[[FolderFile], bool],
        on_progress: OnProgress | None,
        concurrency: int,
        part_bytes: int,
        patience_s: float,
    ) -> None:
        self._folder = folder
        self._store = store
        self._journal = Journal(store, journal)
        self._wanted = wanted
        self._on_progress = on_progress
        self._part_bytes = part_bytes
        self._copying = Copying(
            folder, concurrency=concurrency, patience_s=patience_s, on_part=self._moved, on_file=self._arrived
        )
        self._files: list[FolderFile] = []
        self._done_bytes = self._total_bytes = 0
        self._telling = threading.Lock()

    @contextmanager
    def resumable(self) -> Iterator[None]:
        """Where the block fails, leave what the next attempt needs."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, SourceChanged):
                self._journal.forget(error.name)
            if self._files:
                with suppress(OSError):
                    self._journal.save()
            raise

    def published(self, prefix: str) -> Manifest | None:
        """The version, if an earlier attempt was only kept from saying so."""
        manifest = self._copying.patiently(lambda: read_manifest(self._store, prefix))
        if manifest:
            self._copying.patiently(self._journal.remove)
        return manifest

    def copy_to(self, prefix: str) -> tuple[ManifestFile, ...]:
        """Have all wanted files under the prefix."""
        self._begin()
        for file in self._files:
            _check_target(file, prefix)
        there = self._copying.patiently(lambda: sizes(self._store, prefix))
        copies = []
        for file in self._files:
            arrived = there.get(prefix + file.name) == file.size_bytes
            if arrived and self._journal.sha256(file):
                self._tell(file.size_bytes)
            else:
                copies.append(self._copy(file, prefix + file.name, compare=arrived))
        self._copying.run(copies)
        self._copying.run(
            [self._copy(copy.file, prefix + copy.file.name, compare=False) for copy in copies if copy.differs]
        )
        return self._described()

    def hash(self) -> tuple[ManifestFile, ...]:
        """Read all wanted files."""
        self._begin()
        unknown = [file for file in self._files if not self._journal.sha256(file)]
        self._tell(self._total_bytes - sum(file.size_bytes for file in unknown))
        self._copying.run([FileCopy(file, self._part_bytes, lambda _: Nowhere()) for file in unknown])
        return self._described()

    def check_listing(self) -> None:
        """Raises SourceChanged where the folder is no longer what it was at the start."""
        now = self._copying.patiently(self._listing)
        if changed := set(now) ^ set(self._files):
            raise SourceChanged(min(file.name for file in changed))

    def check_there(self, prefix: str) -> dict[str, int]:
        """The sizes of what else is under the prefix. Raises StoreError unless all wanted files are there."""
        there = self._copying.patiently(lambda: sizes(self._store, prefix))
        for file in self._files:
            if there.pop(prefix + file.name, None) != file.size_bytes:
                raise StoreError(f"object store: {file.name!r} is not there as it should be")
        return there

    def tidy(self, prefix: str) -> None:
        """Remove what is no part of the version from under its prefix."""
        self._copying.patiently(lambda: self._store.drop_uploads(prefix))
        for stray in self.check_there(prefix):
            self._copying.patiently(partial(self._store.delete, stray))

    def publish(self, manifest: Manifest) -> Manifest:
        self._copying.patiently(lambda: write_manifest(self._store, manifest))
        self._copying.patiently(self._journal.remove)
        return manifest

    def _begin(self) -> None:
        self._copying.patiently(self._journal.load)
        self._files = self._copying.patiently(self._listing)
        self._total_bytes = sum(file.size_bytes for file in self._files)
        if self._journal.keep_only(self._files):
            self._copying.patiently(self._journal.save)
        self._tell(0)

    def _listing(self) -> list[FolderFile]:
        found = [file for file in self._folder.files() if file.name != MANIFEST and self._wanted(file)]
        if not found:
            raise RefusedEntry(".", "a folder without any file that a model needs")
        return found

    def _copy(self, file: FolderFile, name: str, *, compare: bool) -> FileCopy:
        def open_target(part_bytes: int) -> PartUpload:
            if compare:
                return Compared(self._store, name, part_bytes)
            if file.size_bytes <= part_bytes:
                return Written(self._store, name)
            return self._store.open_upload(name, file.size_bytes, part_bytes)

        return FileCopy(file, self._part_bytes, open_target)

    def _moved(self, copy: FileCopy, size_bytes: int) -> None:
        if not isinstance(copy.target, Compared):
            self._tell(size_bytes)

    def _arrived(self, copy: FileCopy) -> None:
        if copy.differs:
            return
        if isinstance(copy.target, Compared):
            self._tell(copy.file.size_bytes)
        self._journal.add(copy.file, copy.sha256.hexdigest())
        self._copying.patiently(self._journal.save_when_due)

    def _tell(self, size_bytes: int) -> None:
        with self._telling:
            self._done_bytes += size_bytes
            if self._on_progress:
                self._on_progress(self._done_bytes, self._total_bytes)

    def _described(self) -> tuple[ManifestFile, ...]:
        return tuple(
            ManifestFile(name=file.name, size_bytes=file.size_bytes, sha256=self._journal.sha256(file) or "")
            for file in self._files
        )


def _check_target(file: FolderFile, prefix: str) -> None:
    try:
        check_name(prefix + file.name)
    except ValueError:
        raise RefusedEntry(file.name, "too long a name") from None
