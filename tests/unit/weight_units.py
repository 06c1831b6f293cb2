"""A store that is far away, and units of one node, each a process of its own, that fetch from it and hold."""

import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import EngineStartError
from app.store.file_store import FileStore
from app.store.layout import Manifest, publish_folder
from app.store.object_store import OnBytes
from app.unit.weight_cache import fetch
from tests.forked import PROCESSES

WAIT_S = 30
CHUNK_BYTES = 16 << 10


class FarStore(FileStore):
    """A store whose objects are on no local disk; notes what is fetched, by whichever process."""

    def __init__(self, root: Path, pause_s: float = 0.0):
        super().__init__(root)
        self._root = root
        self._notes = root.with_name("fetched")
        self._pause_s = pause_s
        """Between two chunks."""

    @property
    def fetched(self) -> list[str]:
        """Of each fetching that began: the last part of the name."""
        return self._notes.read_text().splitlines() if self._notes.exists() else []

    def local_path(self, name: str) -> Path | None:
        return None

    def download(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        with self._notes.open("a") as notes:
            notes.write(f"{name.rpartition('/')[2]}\n")
        data = self.content(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{time.monotonic_ns()}.part")
        with partial.open("wb") as file:
            for start in range(0, len(data), CHUNK_BYTES):
                file.write(data[start : start + CHUNK_BYTES])
                file.flush()
                if on_bytes:
                    on_bytes(len(data[start : start + CHUNK_BYTES]))
                time.sleep(self._pause_s)
        partial.rename(path)

    def content(self, name: str) -> bytes:
        """What arrives; a test may have it arrive otherwise."""
        return self.read(name)

    def publish(self, model_id: str, files: dict[str, bytes]) -> Manifest:
        source = self._root.with_name(f"source-{model_id}")
        for name, data in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
        return publish_folder(self, source, model_id=model_id, name="m", base_model="b", precision="BF16")


@pytest.fixture
def near(far: FarStore, tmp_path: Path) -> FileStore:
    """A module's own `far` store, but on this machine's disk."""
    return FileStore(tmp_path / "objects")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@dataclass
class Unit:
    """A process that fetches one version and holds it until told otherwise."""

    store: FarStore
    prefix: str
    cache: Path
    cache_bytes: int | None = None
    _process: Any = field(init=False)
    _connection: Connection = field(init=False)
    _begun: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._connection, theirs = PROCESSES.Pipe()
        arguments = (self.store, self.prefix, self.cache, self.cache_bytes, theirs)
        self._process = PROCESSES.Process(target=_fetch_and_hold, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def wait_until_begun(self) -> None:
        """Until it is about to fetch."""
        assert self._connection.poll(WAIT_S)
        self._connection.recv()
        self._begun = True

    def answer(self) -> Path | str:
        """The folder, or why there is none."""
        if not self._begun:
            self.wait_until_begun()
        assert self._connection.poll(WAIT_S)
        answer: Path | str = self._connection.recv()
        return answer

    def end(self) -> None:
        """As a drained unit does."""
        self._connection.close()
        self._process.join(WAIT_S)
        assert self._process.exitcode == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.join(WAIT_S)
        assert not self._process.is_alive()
        self._connection.close()


def _fetch_and_hold(store: FarStore, prefix: str, cache: Path, cache_bytes: int | None, connection: Connection) -> None:
    connection.send("begins")
    try:
        weights = fetch(store, prefix, cache, cache_bytes=cache_bytes)
    except EngineStartError as error:
        connection.send(EngineStartError.reason_in(str(error)))
        return
    connection.send(weights.folder)
    connection.poll(None)  # until the other end is closed
    weights.close()
