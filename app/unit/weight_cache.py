"""Weights on this node: where the object store is a local folder, in place; else downloaded once per node."""

import fcntl
import shutil
from pathlib import Path

from app.core.errors import EngineStartError
from app.store.layout import MANIFEST, Manifest, read_manifest
from app.store.objects import ObjectMissing, ObjectStore


def fetch(store: ObjectStore, prefix: str, cache_dir: Path) -> Path:
    """A folder with the version's files, complete according to its manifest.

    Raises EngineStartError that names the file which is missing or has the wrong size.
    """
    manifest = read_manifest(store, prefix)
    if manifest is None:
        raise EngineStartError(f"there are no published weights at {prefix}")
    in_place = store.local_path(prefix + MANIFEST)
    if in_place is not None:
        _check(in_place.parent, manifest)
        return in_place.parent
    folder = cache_dir / manifest.digest
    cache_dir.mkdir(parents=True, exist_ok=True)
    with (cache_dir / f"{manifest.digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several units of one node start together: one of them fetches
        if not folder.exists():
            partial = cache_dir / f"{manifest.digest}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            for file in manifest.files:
                (partial / file.name).parent.mkdir(parents=True, exist_ok=True)
                try:
                    store.download(prefix + file.name, partial / file.name)
                except ObjectMissing:
                    raise EngineStartError(f"{file.name} is missing from the object store") from None
            _check(partial, manifest)
            partial.rename(folder)
    return folder


def _check(folder: Path, manifest: Manifest) -> None:
    for file in manifest.files:
        path = folder / file.name
        if not path.is_file():
            raise EngineStartError(f"{file.name} is missing from the model's folder")
        if path.stat().st_size != file.size_bytes:
            raise EngineStartError(
                f"{file.name} has {path.stat().st_size} bytes, its manifest says {file.size_bytes}: it was changed"
            )
