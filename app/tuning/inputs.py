"""Folders that every node needs: those that lack one bring it from the object store, once."""

import fcntl
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from app.store.object_store import ObjectStore, StoreError


@dataclass(frozen=True)
class Input:
    """A folder that lies at the same place on every node, and under a prefix of the store that ends with '/'."""

    path: Path
    prefix: str


def bring(store: ObjectStore, inputs: Iterable[Input]) -> None:
    """Make the folders that this node lacks; workers of one node wait for the first. Raises StoreError."""
    for wanted in inputs:
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        with wanted.path.with_name(f".{wanted.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not wanted.path.exists():
                _download(store, wanted)


def _download(store: ObjectStore, wanted: Input) -> None:
    partial = wanted.path.with_name(f".{wanted.path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    found = [stored.name for stored in store.list(wanted.prefix)]
    if not found:
        raise StoreError(f"there is nothing at {wanted.prefix}")
    for name in found:
        store.download(name, partial / name.removeprefix(wanted.prefix))
    partial.rename(wanted.path)
