"""Bringing files of a folder onto this machine's disk, whole or not at all."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from app.store.folders import Folder, FolderFile
from app.store.layout import read_manifest
from app.store.object_store import ObjectStore, StoreError

CHUNK_BYTES = 16 << 20

OnProgress = Callable[[int, int], None]
"""Told how many bytes are done, and how many there are."""


def fetch_file(folder: Folder, file: FolderFile, path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Create or replace `path`, in bounded memory; returns the sha256. Raises as Folder.read does."""
    arriving = path.with_name(f".{path.name}.part")
    sha256 = hashlib.sha256()
    with arriving.open("wb") as target:
        for start in range(0, file.size_bytes, CHUNK_BYTES):
            data = folder.read(file, start, min(CHUNK_BYTES, file.size_bytes - start))
            sha256.update(data)
            target.write(data)
            if on_bytes:
                on_bytes(len(data))
    arriving.replace(path)
    return sha256.hexdigest()


def fetch_version(
    store: ObjectStore,
    prefix: str,
    folder: Path,
    on_progress: OnProgress | None = None,
    wanted: Callable[[str], bool] = lambda name: True,
) -> Path:
    """A folder that holds the wanted files of a published version, to be read only: the store's own, or else `folder`.

    What is there from an attempt before is not fetched again. Raises StoreError where nothing is published, or what
    came is not what the manifest says.
    """
    manifest = read_manifest(store, prefix)
    if manifest is None:
        raise StoreError(f"nothing is published at {prefix}")
    own = store.local_path(manifest.files_at + manifest.files[0].name)
    if own is not None:
        return own.parents[manifest.files[0].name.count("/")]
    done_bytes, files = 0, [file for file in manifest.files if wanted(file.name)]
    total_bytes = sum(file.size_bytes for file in files)
    for file in files:
        path = folder / file.name
        if not path.is_file() or path.stat().st_size != file.size_bytes:
            store.download(manifest.files_at + file.name, path)
            with path.open("rb") as arrived:
                if hashlib.file_digest(arrived, "sha256").hexdigest() != file.sha256:
                    path.unlink()
                    raise StoreError(f"{file.name} is not what the manifest says")
        done_bytes += file.size_bytes
        if on_progress:
            on_progress(done_bytes, total_bytes)
    return folder
