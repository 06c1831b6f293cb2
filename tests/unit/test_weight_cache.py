import threading
from pathlib import Path

import pytest

from app.core.errors import EngineStartError
from app.store.layout import publish_folder, version_prefix
from app.store.objects import FileStore, OnBytes
from app.unit.weight_cache import fetch

FILES = {"config.json": b"{}", "model.safetensors": bytes(1000), "sub/tokenizer.json": b"[]"}
PREFIX = version_prefix("m-1", "BF16")


class FarStore(FileStore):
    """A store whose objects are on no local disk, and which counts what is fetched."""

    def __init__(self, root: Path):
        super().__init__(root)
        self.downloads: list[str] = []

    def local_path(self, name: str) -> Path | None:
        return None

    def download(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        self.downloads.append(name)
        super().download(name, path, on_bytes)


@pytest.fixture
def far(tmp_path: Path) -> FarStore:
    """Holds one published version."""
    for name, data in FILES.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(data)
    store = FarStore(tmp_path / "objects")
    publish_folder(store, tmp_path / "source", model_id="m-1", name="m", base_model="b", precision="BF16")
    return store


@pytest.fixture
def near(far: FarStore, tmp_path: Path) -> FileStore:
    """The same store on this machine's disk."""
    return FileStore(tmp_path / "objects")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_a_local_store_is_read_in_place(near: FileStore, cache: Path, tmp_path: Path) -> None:
    folder = fetch(near, PREFIX, cache)
    assert folder == tmp_path / "objects" / PREFIX
    assert content(folder) == FILES
    assert not cache.exists()


def test_another_store_is_downloaded_once(far: FarStore, cache: Path) -> None:
    folder = fetch(far, PREFIX, cache)
    assert folder.is_relative_to(cache)
    assert content(folder) == FILES
    assert fetch(far, PREFIX, cache) == folder
    assert sorted(far.downloads) == sorted(PREFIX + name for name in FILES)


def test_units_that_start_together_download_once(far: FarStore, cache: Path) -> None:
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(fetch(far, PREFIX, cache))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(folders) == 4
    assert len(set(folders)) == 1
    assert len(far.downloads) == len(FILES)


def test_what_an_interrupted_download_left_is_replaced(far: FarStore, cache: Path, near: FileStore) -> None:
    far.delete(PREFIX + "model.safetensors")
    with pytest.raises(EngineStartError):
        fetch(far, PREFIX, cache)
    far.write(PREFIX + "model.safetensors", FILES["model.safetensors"])
    assert content(fetch(far, PREFIX, cache)) == FILES


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", ["near", "far"])
def test_a_missing_file_is_named(request: pytest.FixtureRequest, where: str, name: str, cache: Path) -> None:
    store: FileStore = request.getfixturevalue(where)
    store.delete(PREFIX + name)
    with pytest.raises(EngineStartError, match=f"{name} is missing"):
        fetch(store, PREFIX, cache)


@pytest.mark.parametrize("where", ["near", "far"])
def test_a_file_of_another_size_is_named(request: pytest.FixtureRequest, where: str, cache: Path) -> None:
    store: FileStore = request.getfixturevalue(where)
    store.write(PREFIX + "model.safetensors", bytes(999))
    with pytest.raises(EngineStartError, match=r"model\.safetensors has 999 bytes, its manifest says 1000"):
        fetch(store, PREFIX, cache)


def test_weights_that_were_never_published_do_not_exist(near: FileStore, cache: Path) -> None:
    with pytest.raises(EngineStartError, match="no published weights at models/m-2/BF16/"):
        fetch(near, version_prefix("m-2", "BF16"), cache)
