"""Have a model in the object store: SmolLM2-135M-Instruct, or the weights in a local folder.

    python -m app.weights.prepare [FOLDER]

Prints `step TEXT` lines while it works and `model ID` at the end. Done once: what is published already is found
by its ID; an interrupted run is finished by the next.
"""

import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from app.core.errors import PlatformError
from app.settings import Settings
from app.store.layout import publish_folder, read_manifest, version_prefix
from app.store.object_store import ObjectStore
from app.store.objects import open_store
from app.weights import demo_model

DEMO_ID = "m-smollm2-135m-instruct"
DEMO_NAME = demo_model.NAME
PROGRESS_PERIOD_S = 1.0


def main() -> None:
    """Prepare what the command line names, or exit with what is wrong."""
    try:
        model_id = _prepare(Settings.from_environ(), *map(Path, sys.argv[1:2]))
    except (OSError, ValueError, PlatformError) as error:
        sys.exit(f"the model cannot be stored: {error}")
    _say("model", model_id)


def _prepare(settings: Settings, folder: Path | None = None) -> str:
    """The model's ID, once it is stored."""
    store = open_store(settings)
    if folder is None:
        if read_manifest(store, version_prefix(DEMO_ID, "BF16")) is None:
            _publish_demo(settings, store)
        return DEMO_ID
    if not folder.is_dir():
        sys.exit(f"{folder} is not a folder")
    _check_links(folder)
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", folder.name).lstrip("-_.0123456789")[:64] or "model"
    model_id = f"m-{name.lower()[:40].replace('.', '-')}-{_fingerprint(folder)}"
    _publish_folder(settings, store, folder, model_id, name)
    return model_id


def _check_links(folder: Path) -> None:
    """A folder somebody else packed must not bring this user's other files along. Raises ValueError by name.

    Links may point to files in the folder, or where a hub's cache keeps those of snapshots/REVISION: ../../blobs.
    """
    real = folder.resolve()
    allowed = [real, *([real.parents[1] / "blobs"] if real.parent.name == "snapshots" else [])]
    for link in _links(real):
        target = link.resolve()
        if not target.is_file() or not any(target.is_relative_to(place) for place in allowed):
            raise ValueError(f"{link.relative_to(real)} is a link to something else than a file of this folder")


def _links(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):  # goes into no link
        yield from (path for name in (*folders, *files) if (path := Path(where, name)).is_symlink())


def _publish_folder(settings: Settings, store: ObjectStore, folder: Path, model_id: str, name: str) -> None:
    """Publish a folder that the operator named; one made of links (a hub's cache) is copied first."""
    if not any(_links(folder)):
        _publish(store, folder, model_id, name)
        return
    plain = settings.home / "tmp" / model_id
    shutil.rmtree(plain, ignore_errors=True)
    _say("step", f"copying {name}, which is made of links")
    shutil.copytree(folder, plain)
    _publish(store, plain, model_id, name)
    shutil.rmtree(plain)


def _publish_demo(settings: Settings, store: ObjectStore) -> None:
    folder = settings.home / "tmp" / DEMO_ID
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        demo_model.prepare(folder, lambda text: _say("step", text))
    _publish(store, folder, DEMO_ID, DEMO_NAME)
    shutil.rmtree(folder)


def _publish(store: ObjectStore, folder: Path, model_id: str, name: str) -> None:
    if read_manifest(store, version_prefix(model_id, "BF16")) is not None:
        _say("step", f"{name} is published already")
        return
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    done, told = 0, time.monotonic()

    def count(size_bytes: int) -> None:
        nonlocal done, told
        done += size_bytes
        if time.monotonic() - told > PROGRESS_PERIOD_S:
            told = time.monotonic()
            _say("step", f"storing {name}: {done >> 20} of {total >> 20} MiB")

    publish_folder(store, folder, model_id=model_id, name=name, base_model=name, precision="BF16", on_bytes=count)
    _say("step", f"stored {name}: {total >> 20} MiB")


def _fingerprint(folder: Path) -> str:
    """Of names, sizes and times: another content, another model; the same folder again, the same one."""
    facts = [
        f"{path.relative_to(folder)}:{path.stat().st_size}:{path.stat().st_mtime_ns}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return hashlib.sha256("\n".join([str(folder.resolve()), *facts]).encode()).hexdigest()[:8]


def _say(kind: str, text: str) -> None:
    print(kind, text, flush=True)


if __name__ == "__main__":
    main()
