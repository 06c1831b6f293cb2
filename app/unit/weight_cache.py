"""Weights on this node: where the object store is a local folder, in place; else downloaded once per node."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import BinaryIO

from app.core.errors import EngineStartError
from app.store.layout import MANIFEST, Manifest, ManifestFile, read_manifest, sizes
from app.store.object_store import ObjectMissing, ObjectStore, StoreError, StoreUnavailable
from app.unit.weight_cache_checks import other_size
from app.unit.weight_cache_compiled import remove_unused, tidy
from app.unit.weight_cache_entry import Entry
from app.unit.weight_cache_progress import Progress, in_units
from app.unit.weight_cache_room import make_room

WAIT_S = 7200.0
"""For another unit that fetches the same weights, or makes room."""
PARALLEL = 3
"""Files at once. The store fetches each by several connections, and meanwhile another can be checked."""
ATTEMPTS = 2
"""For each file, beside the store's own."""
PAUSES_S = (1.0, 5.0, 15.0, 30.0, 60.0)
"""Before attempts that count as none, because the store may come back."""

log = logging.getLogger("ray.serve")


class Weights:
    """A version's files on this node. They stay there until this is closed or the process ends.

    A process forked from this one, and which runs no other program, would keep them too.
    """

    def __init__(self, folder: Path, entry: Entry, use: BinaryIO) -> None:
        self.folder = folder
        self._entry = entry
        self._use = use

    @property
    def compiled(self) -> Path:
        """A folder for what engines compile for these files, which goes with them, or when it is too much."""
        return self._entry.compiled

    def close(self) -> None:
        """The files may go when room is wanted. What is mapped into memory stays readable even then."""
        if not self._use.closed:
            self._entry.touch()
            self._use.close()


def fetch(
    store: ObjectStore,
    prefix: str,
    cache_dir: Path,
    *,
    digest: str | None = None,
    cache_bytes: int | None = None,
    wait_s: float = WAIT_S,
) -> Weights:
    """The version's files, complete and with the content that its manifest says.

    `digest` is what the manifest's has to be; None takes any. `cache_bytes` bounds all weights in `cache_dir`
    together; None leaves a fifth of the disk free. One process fetches, others wait for it. What an earlier one left
    is used as far as it is sound. Raises EngineStartError.
    """
    try:
        manifest = read_manifest(store, prefix)
        if manifest is None:
            raise EngineStartError(f"there are no published weights at {prefix}")
        if digest not in (None, manifest.digest):
            raise EngineStartError("the weights changed since this revision was made; the next one will have them")
        entry = Entry(cache_dir / manifest.digest)
        try:
            lock = entry.lock(wait_s)
        except TimeoutError:
            raise EngineStartError(
                f"another unit on this node has been fetching the same weights for {wait_s:.0f} s; "
                f"{entry.progress() or 'nothing'} is here"
            ) from None
        with lock:
            # A folder of the user's own may change, and may hold more than the manifest names.
            in_place = None if manifest.files_prefix else store.local_path(prefix + MANIFEST)
            if in_place is not None:
                folder = in_place.parent
                _check_in_place(folder, manifest, entry)
                remove_unused(cache_dir)
            else:
                folder = entry.files
                _Filling(store, manifest.files_at, manifest, entry).run(cache_bytes, wait_s)
            tidy(entry)
            return Weights(folder, entry, entry.use())
    except StoreError as error:
        raise EngineStartError(f"the weights cannot be fetched: {error}") from None
    except OSError as error:
        raise EngineStartError(f"the weight cache cannot be used: {error.strerror or error}") from None
    except ValueError as error:
        raise EngineStartError(str(error)) from None


def progress(cache_dir: Path, digest: str) -> Progress | None:
    """How far this node is with a version that is being fetched or checked, or was last; None when it never was."""
    return Entry(cache_dir / digest).progress()


def _check_in_place(folder: Path, manifest: Manifest, entry: Entry) -> None:
    checks, tally = entry.checks(), entry.tally(manifest.total_bytes)
    tally.write()

    def check(file: ManifestFile) -> str | None:
        problem = checks.problem(folder / file.name, file)
        tally.set(file.name, file.size_bytes)
        return problem

    with ThreadPoolExecutor(PARALLEL) as threads:
        problems = [problem for problem in threads.map(check, manifest.files) if problem]
    tally.write()
    if problems:
        raise EngineStartError("; ".join(problems))


class _Stopped(Exception):
    """Another file could not be fetched, so this one is of no use."""


class _Filling:
    """Makes an entry's files those of a manifest."""

    def __init__(self, store: ObjectStore, prefix: str, manifest: Manifest, entry: Entry) -> None:
        self._store = store
        self._prefix = prefix
        self._manifest = manifest
        self._entry = entry
        self._checks = entry.checks()
        self._tally = entry.tally(manifest.total_bytes)
        self._stopped = threading.Event()

    def run(self, cache_bytes: int | None, wait_s: float) -> None:
        self._tally.write()
        self._entry.sweep({file.name for file in self._manifest.files})
        with ThreadPoolExecutor(PARALLEL) as threads:
            largest_first = sorted(self._manifest.files, key=lambda file: -file.size_bytes)
            sound = threads.map(self._keep_if_sound, largest_first)
            wanted = [file for file, is_sound in zip(largest_first, sound, strict=True) if not is_sound]
            if not wanted:
                return
            self._refuse_if_incomplete(wanted)
            self._tally.begin_to_fetch()
            make_room(self._entry, self._tally, self._manifest.total_bytes, cache_bytes, wait_s)
            started_s = time.monotonic()
            downloads = [threads.submit(self._download, file) for file in wanted]
            try:
                for download in as_completed(downloads):
                    download.result()
            except BaseException:
                self._stopped.set()
                raise
        self._tally.write()
        log.info(
            "fetched %s of weights in %.1f s",
            in_units(sum(file.size_bytes for file in wanted)),
            time.monotonic() - started_s,
        )

    def _refuse_if_incomplete(self, wanted: list[ManifestFile]) -> None:
        """Before anything is removed for it."""
        there = sizes(self._store, self._prefix)
        for file in wanted:
            size = there.get(self._prefix + file.name)
            if size is None:
                raise EngineStartError(f"{file.name} is missing from the object store")
            if size != file.size_bytes:
                raise EngineStartError(other_size(file, size))

    def _keep_if_sound(self, file: ManifestFile) -> bool:
        path = self._entry.files / file.name
        if self._checks.problem(path, file):
            path.unlink(missing_ok=True)
            return False
        self._tally.set(file.name, file.size_bytes)
        return True

    def _download(self, file: ManifestFile) -> None:
        path = self._entry.files / file.name
        attempts_left, pauses_s = ATTEMPTS, iter(PAUSES_S)
        while True:
            if self._stopped.is_set():
                raise _Stopped
            self._tally.set(file.name, 0)
            pause_s: float | None = None
            problem: str | None
            try:
                self._store.download(self._prefix + file.name, path, partial(self._moved, file.name))
            except ObjectMissing:
                raise EngineStartError(f"{file.name} is missing from the object store") from None
            except OSError as error:
                problem = f"{file.name} could not be fetched: {error.strerror or error}"
                if isinstance(error, StoreUnavailable):
                    pause_s = next(pauses_s, None)
            else:
                problem = self._checks.problem(path, file)
                if problem is None:
                    return
                path.unlink()
            log.warning("%s", problem)
            if pause_s is None:
                attempts_left -= 1
                if not attempts_left:
                    raise EngineStartError(problem)
            self._stopped.wait(pause_s or 0)

    def _moved(self, name: str, count: int) -> None:
        """The store's report, from any of its threads."""
        if self._stopped.is_set():
            raise _Stopped
        self._tally.add(name, count)
