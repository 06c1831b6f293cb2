"""A folder that can be deployed, as far as its config.json tells, and what brings its weights, played."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.catalog.catalog import Catalog
from app.control_plane.platform import Platform
from app.core.records import DEFAULT_WORKSPACE


def write_config(folder: Path) -> Path:
    entry = Catalog.load().find("SmolLM2-135M-Instruct")
    assert entry
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": [entry.architectures[0]], **entry.structure}))
    return folder


def make_ready(platform: Platform) -> None:
    """The models that are being made are there: their weights are those of the model that was there before."""
    with platform.lock:
        for model in platform.models.find(DEFAULT_WORKSPACE):
            if model.state == "preparing":
                versions = [one.model_copy(update={"state": "healthy"}) for one in platform.models.versions(model)]
                platform.registry.put(model.model_copy(update={"state": "healthy"}), *versions)
    platform.endpoint_loop.nudge()


@contextmanager
def weights_arriving(platform: Platform) -> Iterator[None]:
    """Every model that is wished for meanwhile is made ready."""
    ended = threading.Event()

    def prepare() -> None:
        while not ended.wait(0.05):
            make_ready(platform)

    thread = threading.Thread(target=prepare)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
