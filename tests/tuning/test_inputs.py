"""Folders that a node brings from the object store."""

import pickle
from pathlib import Path

import pytest

from app.store.file_store import FileStore
from app.store.object_store import StoreError
from app.store.s3_store import S3Store
from app.tuning.inputs import Input, bring


def test_a_folder_that_is_missing_is_brought_once(tmp_path: Path):
    store = FileStore(tmp_path / "store")
    store.write("inputs/base/config.json", b"{}")
    store.write("inputs/base/sub/weights", b"123")
    wanted = Input(tmp_path / "node" / "base", "inputs/base/")
    bring(store, [wanted])
    assert (wanted.path / "sub" / "weights").read_bytes() == b"123"
    store.write("inputs/base/config.json", b"changed")
    bring(store, [wanted])
    assert (wanted.path / "config.json").read_bytes() == b"{}"


def test_what_an_interrupted_download_left_is_not_taken_for_the_folder(tmp_path: Path):
    store = FileStore(tmp_path / "store")
    store.write("inputs/base/config.json", b"{}")
    left = tmp_path / ".base.partial"
    left.mkdir()
    (left / "half").write_bytes(b"?")
    bring(store, [Input(tmp_path / "base", "inputs/base/")])
    assert [path.name for path in (tmp_path / "base").iterdir()] == ["config.json"]


def test_nothing_in_the_store_is_an_error(tmp_path: Path):
    with pytest.raises(StoreError, match="nothing at inputs/none/"):
        bring(FileStore(tmp_path / "store"), [Input(tmp_path / "none", "inputs/none/")])
    assert not (tmp_path / "none").exists()


def test_workers_elsewhere_can_be_given_the_store():
    store = S3Store("bucket", "prefix", endpoint_url="http://127.0.0.1:1", region="r", addressing_style="path")
    again = pickle.loads(pickle.dumps(store))
    assert isinstance(again, S3Store)
    assert (again._bucket, again._prefix, again._client.meta.endpoint_url) == (
        "bucket",
        "prefix/",
        "http://127.0.0.1:1",
    )
