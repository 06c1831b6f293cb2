"""Folders in buckets, and how what people write becomes a folder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.bench.s3_server import S3_KEY, S3_SECRET
from app.core.model_specs import Source
from app.local.ports import free_port
from app.settings import Settings
from app.store.folders import MAX_FILES, Folder, FolderFile, RefusedEntry, SourceChanged, StoreFolder
from app.store.layout import publish_folder
from app.store.local_folder import LocalFolder
from app.store.object_store import ObjectStore, StoreError, StoreUnavailable
from app.store.s3_folder import S3Folder
from app.store.sources import open_source, own_prefix
from tests.s3 import Bucket, set_s3_credentials
from tests.store.faulting_proxy import Fault, FaultingProxy
from tests.store.imports import MODEL, PREFIX, put

FILES = {"b.bin": b"0123456789", "a": b"", "sub/c": b"xyz", "中文": b"1"}


def opened(bucket: Bucket, folder: str = "weights", endpoint_url: str | None = None, **fields: str) -> Folder:
    return open_source(Source.model_validate({"uri": bucket.uri(folder), **fields}), bucket.settings(endpoint_url))


def only(folder: Folder, name: str) -> FolderFile:
    return next(file for file in folder.files() if file.name == name)


@pytest.fixture
def filled(bucket: Bucket) -> Bucket:
    bucket.fill(FILES)
    return bucket


@pytest.mark.service
def test_a_bucket_s_folder_is_listed_and_read(filled: Bucket) -> None:
    for name in ("weights", "weights/"):
        folder = opened(filled, name)
        files = folder.files()
        assert [(file.name, file.size_bytes) for file in files] == [("a", 0), ("b.bin", 10), ("sub/c", 3), ("中文", 1)]
        assert {file.name: folder.read(file) for file in files} == FILES


@pytest.mark.service
def test_ranges_of_an_object(filled: Bucket) -> None:
    folder = opened(filled)
    file = only(folder, "b.bin")
    data = FILES["b.bin"]
    for start, length in [(0, None), (3, 4), (3, None), (9, 5), (10, 1), (99, None), (0, 0), (0, 1 << 50)]:
        assert folder.read(file, start, length) == data[start:][:length], (start, length)


@pytest.mark.service
def test_neighbours_markers_and_hidden_objects_are_no_files_of_it(filled: Bucket) -> None:
    filled.fill({"x": b""}, "weights-old")
    client = filled.client()
    for key in ("weights/", "weights/empty/", "weights/.git/config", "weights/sub/.hidden"):
        client.put_object(Bucket="modelunit-tests", Key=f"{filled.prefix}/{key}", Body=b"")
    assert {file.name for file in opened(filled).files()} == set(FILES)


@pytest.mark.service
def test_a_folder_must_be_named(filled: Bucket) -> None:
    with pytest.raises(RefusedEntry, match=r"^'b\.bin' is a single object; name the folder that holds it$"):
        opened(filled, "weights/b.bin").files()
    with pytest.raises(StoreError, match=r"^source: there is nothing in this folder: '.*/nowhere/'$"):
        opened(filled, "nowhere").files()
    with pytest.raises(StoreError, match=r"^source: NoSuchBucket, at ''$"):
        open_source(Source(uri="s3://no-such-bucket-at-all"), filled.settings()).files()


@pytest.mark.service
def test_names_that_are_not_plain_are_refused_in_buckets(filled: Bucket) -> None:
    filled.client().put_object(Bucket="modelunit-tests", Key=f"{filled.prefix}/weights/new\nline", Body=b"")
    with pytest.raises(RefusedEntry, match="is not a plain name"):
        opened(filled).files()


@pytest.mark.service
@pytest.mark.parametrize("data", [b"9876543210", b"0", b"0" * 20, None])
def test_a_replaced_object_is_noticed(filled: Bucket, data: bytes | None) -> None:
    folder = opened(filled)
    file = only(folder, "b.bin")
    key = {"Bucket": "modelunit-tests", "Key": f"{filled.prefix}/weights/b.bin"}
    if data is None:
        filled.client().delete_object(**key)
    else:
        filled.client().put_object(**key, Body=data)
    with pytest.raises(SourceChanged, match=r"^'b\.bin' was replaced"):
        folder.read(file)
    with pytest.raises(SourceChanged, match=r"^'b\.bin' was replaced"):
        folder.read(file, 2, 3)


@pytest.mark.service
def test_a_large_object_keeps_its_etag(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(20 << 20))
    bucket.client().upload_file(str(tmp_path / "large"), "modelunit-tests", f"{bucket.prefix}/weights/large")
    folder = opened(bucket)
    file = only(folder, "large")
    assert folder.read(file, 17 << 20) == bytes(3 << 20)


@pytest.mark.service
@pytest.mark.parametrize("fault", [Fault(cut_at=4), Fault(reset_at=4), Fault(status=500)])
def test_an_answer_that_breaks_off_is_asked_for_again(filled: Bucket, proxy: FaultingProxy, fault: Fault) -> None:
    folder = opened(filled, endpoint_url=proxy.url)
    file = only(folder, "b.bin")
    faults = [fault, fault]
    proxy.plan = lambda request: faults.pop() if faults else None
    assert folder.read(file) == FILES["b.bin"]
    assert not faults


@pytest.mark.service
@pytest.mark.parametrize("target", ["list-type", "b.bin"])
@pytest.mark.parametrize("fault", [Fault(cut_at=4), Fault(reset_at=0), Fault(status=503)])
def test_a_server_that_keeps_failing_is_named_as_passing_trouble(
    filled: Bucket, proxy: FaultingProxy, target: str, fault: Fault
) -> None:
    folder = opened(filled, endpoint_url=proxy.url)
    file = only(folder, "b.bin")
    proxy.plan = lambda request: fault if target in request.target else None
    with pytest.raises(StoreUnavailable, match=r"^source: [A-Za-z0-9]+, at '"):
        _ = folder.files() if target == "list-type" else folder.read(file)


@pytest.mark.service
def test_what_does_not_pass_is_another_error(filled: Bucket, proxy: FaultingProxy) -> None:
    proxy.plan = lambda request: Fault(status=403)
    with pytest.raises(StoreError, match=r"^source: AccessDenied, at '") as failure:
        opened(filled, endpoint_url=proxy.url).files()
    assert not isinstance(failure.value, StoreUnavailable)


def test_a_listing_that_does_not_end_is_given_up() -> None:
    class Endless:
        pages = 0

        def get_paginator(self, name: str) -> "Endless":
            return self

        def paginate(self, **_: str) -> Iterator[dict[str, Any]]:
            while True:
                self.pages += 1
                keys = [f"x/{self.pages}-{number}" for number in range(1000)]
                yield {"Contents": [{"Key": key, "Size": 1, "ETag": '"e"'} for key in keys]}

    endless = Endless()
    with pytest.raises(RefusedEntry, match=r"a folder of more than 10,000 files"):
        S3Folder(endless, "bucket", "x/").files()
    assert endless.pages == MAX_FILES // 1000 + 1


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    set_s3_credentials(monkeypatch)
    source = Source(uri="s3://bucket/x", endpoint_url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnavailable, match=r"^source: EndpointConnectionError, at 'x/'$"):
        open_source(source, Settings()).files()


def test_a_profile_that_is_not_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with pytest.raises(StoreError, match=r"^source: ProfileNotFound, at 'x/'$"):
        open_source(Source(uri="s3://bucket/x", profile="nobody"), Settings())


@pytest.mark.service
def test_a_source_with_a_server_and_a_profile_of_its_own(
    filled: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    credentials = f"[theirs]\naws_access_key_id = {S3_KEY}\naws_secret_access_key = {S3_SECRET}\n"
    (tmp_path / "credentials").write_text(credentials)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    source = Source(
        uri=filled.uri(), endpoint_url=filled.url, region="cn-north-4", addressing_style="path", profile="theirs"
    )
    folder = open_source(source, Settings(object_store=f"file://{tmp_path}"))
    assert {file.name for file in folder.files()} == set(FILES)


def test_a_local_source(tmp_path: Path) -> None:
    put(tmp_path.resolve() / "weights", FILES)
    folder = open_source(Source(uri=f"file://{tmp_path.resolve()}/weights/"), Settings())
    assert isinstance(folder, LocalFolder)
    assert {file.name: folder.read(file) for file in folder.files()} == FILES


def test_a_version_as_a_folder(store: ObjectStore, tmp_path: Path) -> None:
    publish_folder(store, put(tmp_path / "weights", FILES), **MODEL)
    folder: Folder = StoreFolder(store, PREFIX)
    assert {file.name: folder.read(file) for file in folder.files()} == FILES
    assert folder.read(only(folder, "b.bin"), 3, 4) == b"3456"
    store.delete(PREFIX + "b.bin")
    with pytest.raises(SourceChanged):
        folder.read(only(folder, "b.bin"))


def test_a_version_that_is_not_published_is_no_folder(store: ObjectStore) -> None:
    with pytest.raises(StoreError, match=r"nothing is published at models/m-1/BF16/"):
        StoreFolder(store, PREFIX).files()
    store.write(f"{PREFIX}manifest.json", b"{")
    with pytest.raises(StoreError, match=r"manifest\.json"):
        StoreFolder(store, PREFIX).files()


@pytest.mark.parametrize(
    ("store", "source", "prefix"),
    [
        ("s3://bucket/objects", "s3://bucket/objects/mine", "mine/"),
        ("s3://bucket/objects/", "s3://bucket/objects/a/b/", "a/b/"),
        ("s3://bucket", "s3://bucket/mine", "mine/"),
        ("s3://bucket/objects", "s3://bucket/objects", None),
        ("s3://bucket/objects", "s3://bucket/objects-2/x", None),
        ("s3://bucket/objects", "s3://other/objects/mine", None),
        ("s3://bucket/objects", "file:///bucket/objects/mine", None),
        ("file:///data/objects", "file:///data/objects/mine", "mine/"),
        ("file:///data/objects", "file:///data/other", None),
        ("file:///data/objects", "s3://data/objects/mine", None),
    ],
)
def test_what_lies_in_the_platform_s_own_store(store: str, source: str, prefix: str | None) -> None:
    assert own_prefix(Source(uri=source), Settings(object_store=store)) == prefix


def test_another_server_or_profile_is_not_the_platform_s_own_store() -> None:
    settings = Settings(object_store="s3://bucket/objects", s3_endpoint_url="http://ours:1")
    uri = "s3://bucket/objects/mine"
    same: Callable[..., str | None] = lambda **fields: own_prefix(Source(uri=uri, **fields), settings)  # noqa: E731
    assert same() == same(endpoint_url="http://ours:1") == "mine/"
    assert same(endpoint_url="http://theirs:1") is None
    assert same(profile="theirs") is None
