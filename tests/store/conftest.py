"""The two implementations of each part of the store."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.settings import Settings
from app.store.database import Registry
from app.store.object_store import ObjectStore
from app.store.objects import open_store
from tests.s3 import open_s3, set_s3_credentials


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.service)])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An empty object store of either kind."""
    if request.param == "file":
        return open_store(Settings(object_store=f"file://{tmp_path}/objects"))
    set_s3_credentials(monkeypatch)
    return open_s3(request.getfixturevalue("s3_url"))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database of either kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/new folder/registry.db"
        return
    with request.getfixturevalue("postgresql").database() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database of either kind, of the newest schema and without records."""
    if request.param == "sqlite":
        yield f"sqlite:///{shutil.copy(request.getfixturevalue('migrated_file'), tmp_path)}"
        return
    with request.getfixturevalue("postgresql").migrated_database() as url:
        yield url


@pytest.fixture
def open_registry(database_url: str) -> Iterator[Callable[[], Registry]]:
    """Opens registries on one database, closed in the end."""
    with ExitStack() as opened:

        def open_one() -> Registry:
            registry = Registry(database_url)
            opened.callback(registry.close)
            return registry

        yield open_one


@pytest.fixture
def registry(open_registry: Callable[[], Registry]) -> Registry:
    """An empty registry of the newest schema."""
    return open_registry()
