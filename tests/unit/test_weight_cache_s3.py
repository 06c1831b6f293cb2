"""The weight cache on a real S3 server: parts, ranges, faults on the way, and what is fetched again after them."""

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.core.errors import EngineStartError
from app.store.layout import MANIFEST, Manifest, publish_folder
from app.store.object_store import ObjectStore
from app.store.objects import open_store
from app.unit import weight_cache
from app.unit.weight_cache import fetch, progress
from tests.s3 import Bucket
from tests.store.faulting_proxy import Fault, FaultingProxy, Request

pytestmark = pytest.mark.service

MIB = 1 << 20
SIZES = {"config.json": 2, "model-1.safetensors": 20 * MIB + 1, "model-2.safetensors": 3 * MIB, "sub/vocab.txt": 0}


@pytest.fixture
def files() -> dict[str, bytes]:
    return {name: random.Random(name).randbytes(size) for name, size in SIZES.items()}


@pytest.fixture
def published(bucket: Bucket, files: dict[str, bytes], tmp_path: Path) -> Manifest:
    source = tmp_path / "source"
    for name, data in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    store = open_store(bucket.settings())
    store.write("begun", b"this makes the bucket")
    return publish_folder(store, source, model_id="m-1", name="m", base_model="b", precision="BF16")


@pytest.fixture
def store(bucket: Bucket, proxy: FaultingProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """By way of the proxy; pauses between attempts are short."""
    monkeypatch.setattr(weight_cache, "PAUSES_S", (0.01,) * 3)
    yield open_store(bucket.settings(proxy.url))
    proxy.plan = lambda request: None


@pytest.fixture
def fetch_all(store: ObjectStore, published: Manifest, tmp_path: Path) -> Callable[[], dict[str, bytes]]:
    """Fetches the version as a unit that ends at once; returns what it got."""

    def fetch_once() -> dict[str, bytes]:
        with closing(fetch(store, published.prefix, tmp_path / "cache", digest=published.digest)) as weights:
            found = [path for path in weights.folder.rglob("*") if path.is_file()]
            return {path.relative_to(weights.folder).as_posix(): path.read_bytes() for path in found}

    return fetch_once


def fetched(proxy: FaultingProxy) -> set[str]:
    """The files that the server was asked for."""
    return {name for name in SIZES if any(request.key.endswith(f"BF16/{name}") for request in proxy.passed)}


def test_a_version_is_fetched_once_and_whole(
    fetch_all: Callable[[], dict[str, bytes]],
    published: Manifest,
    files: dict[str, bytes],
    bucket: Bucket,
    proxy: FaultingProxy,
    tmp_path: Path,
) -> None:
    assert fetch_all() == files
    there = progress(tmp_path / "cache", published.digest)
    assert there
    assert there.done_bytes == there.total_bytes == sum(SIZES.values())
    assert fetched(proxy) == files.keys()
    proxy.passed.clear()
    for name in files:  # nobody asks for these any more
        open_store(bucket.settings()).delete(published.prefix + name)
    assert fetch_all() == files
    assert [request.key.rpartition("/")[2] for request in proxy.passed] == [MANIFEST]


FAULTS = {
    "slow down": Fault(status=503),
    "reset": Fault(reset_at=0),
    "reset on the way": Fault(reset_at=100_000),
    "truncated": Fault(cut_at=1000),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_faults_that_pass_do_not_show(
    fetch_all: Callable[[], dict[str, bytes]], files: dict[str, bytes], proxy: FaultingProxy, fault: Fault
) -> None:
    met: set[str] = set()

    def once_each(request: Request) -> Fault | None:
        if request.target in met or request.key.endswith(MANIFEST):
            return None
        met.add(request.target)
        return fault

    proxy.plan = once_each
    assert fetch_all() == files
    assert len(met) > len(files)


def test_after_a_fault_that_stays_only_what_is_missing_is_fetched(
    fetch_all: Callable[[], dict[str, bytes]], files: dict[str, bytes], proxy: FaultingProxy, tmp_path: Path
) -> None:
    proxy.plan = lambda request: Fault(status=403) if request.key.endswith("model-2.safetensors") else None
    with pytest.raises(EngineStartError, match=r"model-2\.safetensors could not be fetched: .*AccessDenied"):
        fetch_all()
    here = {path.name: path.read_bytes() for path in tmp_path.glob("cache/*/files/*") if path.is_file()}
    proxy.plan = lambda request: None
    proxy.passed.clear()
    assert fetch_all() == files
    asked_for = {request.key.rpartition("/")[2] for request in proxy.passed if request.method in ("GET", "HEAD")}
    assert "model-2.safetensors" in asked_for
    assert not asked_for & {name for name, data in here.items() if files.get(name) == data}


def test_an_object_that_was_replaced_is_named(
    fetch_all: Callable[[], dict[str, bytes]], published: Manifest, bucket: Bucket
) -> None:
    open_store(bucket.settings()).write(f"{published.prefix}model-2.safetensors", bytes(3 * MIB))
    with pytest.raises(EngineStartError, match=r"model-2\.safetensors is not what its manifest says"):
        fetch_all()


def test_a_server_that_refuses_is_named_without_its_address(
    fetch_all: Callable[[], dict[str, bytes]], proxy: FaultingProxy
) -> None:
    proxy.plan = lambda request: Fault(status=403)
    with pytest.raises(EngineStartError, match="the weights cannot be fetched: object store: AccessDenied") as refused:
        fetch_all()
    assert "127.0.0.1" not in str(refused.value)
