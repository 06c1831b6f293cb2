"""Freeing storage: a version that is no longer wanted, and what half-made ones have left."""

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime

from app.store.layout import MANIFEST, MODELS
from app.store.object_store import ObjectStore, StoredObject


def delete_version(store: ObjectStore, prefix: str) -> None:
    """Remove a version, finished or not; safe to repeat.

    The manifest goes first: from then on the version does not exist, and whatever a crash leaves goes when this is
    called again, or by `sweep`. Files of a referenced folder lie elsewhere, and stay. Raises StoreError.
    """
    if not prefix or _version_of(prefix + MANIFEST) != prefix:
        raise ValueError(f"not the prefix of a version: {prefix!r}")
    store.delete(prefix + MANIFEST)
    store.drop_uploads(prefix)
    for stored in list(store.list(prefix)):
        store.delete(stored.name)


def sweep(store: ObjectStore, known: Collection[str], before: datetime) -> int:
    """Free what lies under no known version's prefix, has no manifest, and did not grow since; returns the bytes.

    `known` are the prefixes of versions that the registry has, whatever their state: those may be in the making.
    """
    left: dict[str, list[StoredObject]] = defaultdict(list)
    for stored in (*store.list(MODELS), *store.unfinished(MODELS)):
        if (prefix := _version_of(stored.name)) and prefix not in known:
            left[prefix].append(stored)
    freed_bytes = 0
    for prefix, found in left.items():
        if not any(stored.name == prefix + MANIFEST or stored.modified_at >= before for stored in found):
            freed_bytes += sum(stored.size_bytes for stored in found)
            delete_version(store, prefix)
    return freed_bytes


def _version_of(name: str) -> str:
    """The prefix of the version that has this object, or ""."""
    parts = name.split("/")
    return "/".join(parts[:3]) + "/" if len(parts) > 3 and parts[0] + "/" == MODELS and all(parts[1:3]) else ""
