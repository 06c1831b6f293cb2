"""Imports from S3 into S3 through a proxy that fails, and imports whose process is killed."""

import os
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.bench.s3_server import s3_credentials
from app.core.model_specs import Source
from app.store.folders import Folder, SourceChanged
from app.store.layout import MANIFEST, read_manifest
from app.store.object_store import ObjectStore, StoreUnavailable
from app.store.objects import open_store
from app.store.sources import open_source
from tests.forked import PROCESSES
from tests.s3 import Bucket
from tests.store.faulting_proxy import Fault, FaultingProxy, Request
from tests.store.imports import MIB, PREFIX, SIZES, bring, bring_alone, content, weights

pytestmark = pytest.mark.service

FILES = weights()
TOTAL_BYTES = sum(SIZES.values())
WAIT_S = 60


@pytest.fixture(scope="module")
def source(s3_url: str) -> str:
    """Where the weights lie that all tests here import; not to be written to."""
    filled = Bucket(s3_url, uuid.uuid4().hex)
    with s3_credentials():
        filled.fill(FILES)
    return filled.uri()


@pytest.fixture
def folder(source: str, bucket: Bucket, proxy: FaultingProxy) -> Folder:
    return open_source(Source(uri=source), bucket.settings(proxy.url))


@pytest.fixture
def store(bucket: Bucket, proxy: FaultingProxy) -> ObjectStore:
    return open_store(bucket.settings(proxy.url))


def check_published(store: ObjectStore) -> None:
    there = content(store)
    assert there.pop(MANIFEST)
    assert there == FILES
    assert not list(store.unfinished(""))


def sent_again(proxy: FaultingProxy) -> list[tuple[str, str]]:
    """The objects and parts of weights that the server accepted more than once."""
    times = Counter(part for part in proxy.stored() if PREFIX in part[0])
    return [part for part, count in times.items() if count > 1]


FAULTS = {
    "500": Fault(status=500),
    "503": Fault(status=503),
    "reset before the server": Fault(reset_at=0),
    "reset on the way": Fault(reset_at=100_000),
    "truncated": Fault(cut_at=1000),
    "answer lost": Fault(lose_answer=True),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_faults_that_pass_do_not_show(folder: Folder, store: ObjectStore, proxy: FaultingProxy, fault: Fault) -> None:
    generator = random.Random(7)
    proxy.plan = lambda request: fault if generator.random() < 0.2 else None
    bring(folder, store)
    proxy.plan = lambda request: None
    check_published(store)


def test_a_slow_server_is_waited_for(folder: Folder, store: ObjectStore, proxy: FaultingProxy) -> None:
    proxy.plan = lambda request: Fault(bytes_per_s=4 * MIB) if "model-3" in request.key else None
    bring(folder, store)
    check_published(store)


def uploads(request: Request) -> bool:
    return "partNumber" in request.query and request.key.endswith("model-3.safetensors")


def reads_late(request: Request) -> bool:
    return request.method == "GET" and request.key.endswith("weights/sub/tokenizer.json")


def finishes(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.query


def publishes(request: Request) -> bool:
    return request.method == "PUT" and request.key.endswith(PREFIX + MANIFEST)


@pytest.mark.parametrize("broken", [uploads, reads_late, finishes, publishes])
@pytest.mark.parametrize("fault", [Fault(status=500), Fault(reset_at=0)], ids=["500", "reset"])
def test_a_fault_that_stays_is_told_and_the_next_attempt_sends_only_what_is_missing(
    folder: Folder, store: ObjectStore, proxy: FaultingProxy, broken: Callable[[Request], bool], fault: Fault
) -> None:
    proxy.plan = lambda request: fault if broken(request) else None
    with pytest.raises(StoreUnavailable, match=r"^(source|object store): [A-Za-z]+, at '"):
        bring(folder, store, patience_s=0.3)
    assert read_manifest(store, PREFIX) is None
    proxy.plan = lambda request: None
    bring(folder, store)
    check_published(store)
    assert not sent_again(proxy)


def test_a_server_that_finished_and_was_not_heard_is_believed(
    folder: Folder, store: ObjectStore, proxy: FaultingProxy
) -> None:
    finished: set[str] = set()

    def forget(request: Request) -> Fault | None:
        if not finishes(request):
            return None
        again = request.key in finished
        finished.add(request.key)
        return Fault(status=404) if again else Fault(lose_answer=True)

    proxy.plan = forget
    bring(folder, store)
    check_published(store)
    assert len(finished) == 2


@pytest.mark.parametrize("name", ["config.json", "model-1.safetensors"])
def test_an_object_that_is_replaced_meanwhile_is_not_published(
    store: ObjectStore, proxy: FaultingProxy, bucket: Bucket, name: str
) -> None:
    bucket.fill(FILES)
    folder = open_source(Source(uri=bucket.uri()), bucket.settings(proxy.url))
    swapped: list[bool] = []

    def swap(request: Request) -> None:
        """When the first byte of the last file is asked for."""
        if reads_late(request) and not swapped:
            swapped.append(True)
            bucket.fill({name: weights(1)[name]})

    proxy.plan = swap  # type: ignore[assignment]
    with pytest.raises(SourceChanged, match=f"^'{name}' was replaced"):
        bring(folder, store)
    assert read_manifest(store, PREFIX) is None
    bring(folder, store)
    assert content(store) == FILES | {name: weights(1)[name], MANIFEST: store.read(PREFIX + MANIFEST)}


class Import:
    """An import as a process, killed when `count` bytes of bodies have passed the proxy."""

    def __init__(self, source: str, store: str, endpoint_url: str) -> None:
        self._addresses = (source, store, endpoint_url)

    def run(self) -> None:
        process = self._start()
        process.join(WAIT_S)
        assert process.exitcode == 0

    def run_and_kill(self, proxy: FaultingProxy, count: int) -> bool:
        """Whether it was killed before its end."""
        process = self._start()
        left = count

        def strike(moved: int) -> None:
            nonlocal left
            left -= moved
            if left <= 0:
                process.kill()

        proxy.on_bytes = strike
        try:
            process.join(WAIT_S)
            return process.exitcode == -signal.SIGKILL
        finally:
            proxy.on_bytes = lambda moved: None
            process.kill()
            process.join()

    def _start(self) -> Any:
        process = PROCESSES.Process(target=bring_alone, args=(dict(os.environ), *self._addresses), daemon=True)
        process.start()
        return process


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_import_goes_on_where_it_was(source: str, bucket: Bucket, proxy: FaultingProxy, seed: int) -> None:
    store = open_store(bucket.settings())
    importing = Import(source, bucket.uri("objects"), proxy.url)
    generator = random.Random(seed)
    killed = 0
    for _ in range(3):
        killed += importing.run_and_kill(proxy, generator.randrange(2 * TOTAL_BYTES))
        settled(proxy)
    importing.run()
    assert killed
    check_published(store)
    assert not sent_again(proxy)


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_import_into_files_goes_on(
    source: str, bucket: Bucket, proxy: FaultingProxy, tmp_path: Path, seed: int
) -> None:
    address = f"file://{tmp_path}/objects"
    importing = Import(source, address, proxy.url)
    generator = random.Random(seed)
    killed = sum(importing.run_and_kill(proxy, generator.randrange(TOTAL_BYTES)) for _ in range(3))
    importing.run()
    assert killed
    store = open_store(bucket.settings().model_copy(update={"object_store": address}))
    check_published(store)
    assert not (tmp_path / "objects" / ".incoming" / "parts").exists()


def settled(proxy: FaultingProxy) -> None:
    """Wait until the server has answered what a killed client had sent whole."""
    deadline = time.monotonic() + WAIT_S
    while proxy.under_way and time.monotonic() < deadline:
        time.sleep(0.01)
