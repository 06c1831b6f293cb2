from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.store.layout import MANIFEST, find_manifests, publish_folder
from app.store.object_store import ObjectStore
from app.store.removal import delete_version, sweep
from tests.store.imports import MIB, MODEL, PART_BYTES, PREFIX, put

FILES = {"config.json": b"{}", "model.safetensors": bytes(1000), "sub/tokenizer.json": b"[]"}
SOON = datetime.now(UTC) + timedelta(days=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Killed(BaseException):
    pass


class Dying:
    """A store that does so many deletions and no more."""

    def __init__(self, store: ObjectStore, deletions: int) -> None:
        self._store = store
        self._left = deletions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def delete(self, name: str) -> None:
        if not self._left:
            raise Killed
        self._left -= 1
        self._store.delete(name)


@pytest.fixture
def published(store: ObjectStore, tmp_path: Any) -> ObjectStore:
    """A store with two versions."""
    for model_id in ("m-1", "m-2"):
        publish_folder(store, put(tmp_path / "weights", FILES), **MODEL | {"model_id": model_id})
    return store


def names(store: ObjectStore) -> set[str]:
    return {stored.name for stored in store.list("")}


def begin_upload(store: ObjectStore, name: str) -> None:
    store.open_upload(name, 6 * MIB, PART_BYTES).send(0, bytes(PART_BYTES))


def test_a_version_goes_with_all_it_has(published: ObjectStore) -> None:
    begin_upload(published, f"{PREFIX}late.safetensors")
    published.write(f"{PREFIX}stray", b"")
    delete_version(published, PREFIX)
    assert names(published) == {f"models/m-2/BF16/{name}" for name in (*FILES, MANIFEST)}
    assert not list(published.unfinished(""))
    delete_version(published, PREFIX)


@pytest.mark.parametrize("deletions", range(4))
def test_a_half_deleted_version_does_not_exist_and_goes_when_asked_again(
    published: ObjectStore, deletions: int
) -> None:
    with pytest.raises(Killed):
        delete_version(Dying(published, deletions), PREFIX)  # type: ignore[arg-type]
    there = {manifest.model_id for manifest in find_manifests(published)}
    whole = {PREFIX + name for name in FILES} <= names(published)
    assert ("m-1" in there) == (deletions == 0)
    assert whole or "m-1" not in there
    delete_version(published, PREFIX)
    assert not list(published.list(PREFIX))


@pytest.mark.parametrize(
    "prefix", ["", "models/", "models/m-1/", "models/m-1/BF16", "models/m-1/BF16/sub/", "jobs/a/b/"]
)
def test_only_a_version_is_deleted(published: ObjectStore, prefix: str) -> None:
    before = names(published)
    with pytest.raises(ValueError, match="not the prefix of a version"):
        delete_version(published, prefix)
    assert names(published) == before


def test_what_belongs_to_nobody_is_swept(published: ObjectStore) -> None:
    for model_id in ("m-3", "m-4"):
        published.write(f"models/{model_id}/BF16/model.safetensors", bytes(500))
        begin_upload(published, f"models/{model_id}/BF16/other.safetensors")
    begin_upload(published, "models/m-5/BF16/other.safetensors")
    published.write("jobs/job-1/progress.json", b"{}")
    before = names(published)
    known = {"models/m-1/BF16/", "models/m-4/BF16/"}
    assert sweep(published, known, LONG_AGO) == 0
    assert names(published) == before
    assert len(list(published.unfinished("models/"))) == 3

    assert sweep(published, known, SOON) >= 500
    assert names(published) == before - {"models/m-3/BF16/model.safetensors"}
    assert [upload.name for upload in published.unfinished("models/")] == ["models/m-4/BF16/other.safetensors"]
