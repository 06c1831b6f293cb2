"""What tests import: a small model's files, and an import of them, also for a process of its own."""

import os
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from app.core.model_specs import Source
from app.settings import Settings
from app.store.folders import Folder, FolderFile
from app.store.importing import import_folder
from app.store.layout import Manifest, version_prefix
from app.store.object_store import ObjectStore
from app.store.objects import open_store
from app.store.sources import open_source

MIB = 1 << 20
PART_BYTES = 5 * MIB
"""The least that S3 takes."""
JOURNAL = "jobs/job-1/journal.json"
MODEL: Any = {"model_id": "m-1", "name": "demo", "base_model": "qwen", "precision": "BF16"}
PREFIX = version_prefix("m-1", "BF16")
SIZES = {
    "config.json": 200,
    "empty.txt": 0,
    "model-1.safetensors": 12 * MIB + 1,
    "model-2.safetensors": 5 * MIB,
    "model-3.safetensors": 10 * MIB,
    "sub/tokenizer.json": 70_000,
}


@cache
def weights(seed: int = 0) -> dict[str, bytes]:
    """Files by name, not to be changed; another seed gives the same sizes."""
    generator = random.Random(seed)
    return {name: generator.randbytes(size) for name, size in SIZES.items()}


def put(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def anything(file: FolderFile) -> bool:
    return True


def bring(folder: Folder, store: ObjectStore, **options: Any) -> Manifest:
    """Import with small parts."""
    given = {**MODEL, "journal": JOURNAL, "wanted": anything, "part_bytes": PART_BYTES, "concurrency": 4, **options}
    return import_folder(folder, store, **given)


def content(store: ObjectStore) -> dict[str, bytes]:
    """What lies under the version's prefix."""
    return {stored.name.removeprefix(PREFIX): store.read(stored.name) for stored in store.list(PREFIX)}


def bring_alone(environment: Mapping[str, str], source: str, address: str, endpoint_url: str) -> None:
    """In a process that began before `environment` was set."""
    os.environ.clear()
    os.environ.update(environment)
    settings = Settings(object_store=address, s3_endpoint_url=endpoint_url, s3_addressing_style="path")
    bring(open_source(Source(uri=source), settings), open_store(settings))
