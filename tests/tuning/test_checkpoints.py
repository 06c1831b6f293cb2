"""Checkpoints: there is one only once all of it is there, and what is broken is passed over."""

import contextlib
from pathlib import Path

import pytest

from app.core.tuning_spec import TrainingPlan
from app.store.file_store import FileStore
from app.store.object_store import StoreError
from app.tuning.checkpoints import CheckpointStore
from tests.tuning.tiny_models import plan_of

PREFIX = "jobs/job-1/checkpoints/"
PLAN = plan_of()


class Cut(Exception):
    """The process died here."""


class CutStore(FileStore):
    """Dies at a call of `write`, `upload` or `delete`."""

    calls_left = 1 << 30

    def _call(self) -> None:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise Cut

    def write(self, name: str, data: bytes) -> None:
        self._call()
        super().write(name, data)

    def upload(self, name: str, path: Path, on_bytes: object = None) -> None:
        self._call()
        super().upload(name, path)

    def delete(self, name: str) -> None:
        self._call()
        super().delete(name)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "one").write_text("one")
    (tmp_path / "two").write_text("two")
    return {"one": tmp_path / "one", "two": tmp_path / "two"}


def iterations(store: CheckpointStore, plan: TrainingPlan = PLAN, digest: str = "data") -> list[int]:
    return [found.iteration for found in store.newest(plan, digest)]


def test_the_newest_two_are_kept(tmp_path: Path, files: dict[str, Path]):
    store = CheckpointStore(FileStore(tmp_path / "store"), PREFIX)
    for iteration in (10, 20, 30, 40):
        store.write(PLAN, "data", iteration, files)
    assert iterations(store) == [40, 30]
    assert {stored.name.split("/")[3] for stored in store.store.list(PREFIX)} == {"0000030", "0000040"}


@pytest.mark.parametrize("calls", range(12))
def test_a_writer_that_dies_anywhere_leaves_the_one_before_or_the_new_one(
    tmp_path: Path, files: dict[str, Path], calls: int
):
    objects = CutStore(tmp_path / "store")
    store = CheckpointStore(objects, PREFIX)
    for iteration in (10, 20):
        store.write(PLAN, "data", iteration, files)
    objects.calls_left = calls
    with contextlib.suppress(Cut):
        store.write(PLAN, "data", 30, files)
    objects.calls_left = 1 << 30
    found = store.fetch_newest(PLAN, "data", tmp_path / "fetched")
    assert found
    assert found.iteration == (30 if calls > 3 else 20)
    assert (tmp_path / "fetched" / "two").read_text() == "two"
    store.write(PLAN, "data", 30, files)
    store.write(PLAN, "data", 40, files)
    assert iterations(store) == [40, 30]


def test_of_another_plan_or_other_data_is_none(tmp_path: Path, files: dict[str, Path]):
    store = CheckpointStore(FileStore(tmp_path / "store"), PREFIX)
    store.write(PLAN, "data", 10, files)
    assert iterations(store, plan_of(learning_rate=0.5)) == []
    assert iterations(store, digest="other") == []
    assert iterations(store, plan_of(checkpoint_every=77, origins={"seed": "given"})) == [10]


def test_one_with_a_broken_file_or_manifest_is_passed_over(tmp_path: Path, files: dict[str, Path]):
    store = CheckpointStore(FileStore(tmp_path / "store"), PREFIX)
    store.write(PLAN, "data", 10, files)
    newest = store.write(PLAN, "data", 20, files)
    store.store.write(f"{PREFIX}0000020/two", b"not two")
    with pytest.raises(StoreError, match="two of the checkpoint at iteration 20 is broken"):
        store.fetch(newest, tmp_path / "fetched")
    found = store.fetch_newest(PLAN, "data", tmp_path / "fetched")
    assert found
    assert found.iteration == 10
    store.store.write(f"{PREFIX}0000010/manifest.json", b"{")
    assert store.fetch_newest(PLAN, "data", tmp_path / "fetched") is None


def test_without_any_there_is_none(tmp_path: Path):
    store = CheckpointStore(FileStore(tmp_path / "store"), PREFIX)
    assert store.fetch_newest(PLAN, "data", tmp_path / "fetched") is None
