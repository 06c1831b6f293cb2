import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from app.core.routing import RoutingTable
from app.router import directory as module
from app.router.directory import Directory
from app.store.file_store import FileStore
from app.store.layout import SNAPSHOT
from tests.router.tables import NoControlPlane, table
from tests.router.units import WAIT_S, until


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "objects")


class Source:
    """Gives what the test puts in; an exception is raised."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.asked_after: list[int] = []

    async def next_table(self, after: int, wait_s: float) -> bytes | None:
        self.asked_after.append(after)
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.answers.put_nowait(table(number).model_dump_json().encode())


@asynccontextmanager
async def following(directory: Directory) -> AsyncIterator[None]:
    task = asyncio.create_task(directory.follow())
    try:
        async with asyncio.timeout(WAIT_S):
            yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_router_starts_from_the_snapshot_without_the_control_plane(store: FileStore) -> None:
    store.write(SNAPSHOT, table(41).model_dump_json().encode())
    directory = Directory(store, NoControlPlane())
    assert directory.table.number == 0
    assert not directory.loaded
    await directory.load_snapshot()
    assert (directory.loaded, directory.table) == (True, table(41))
    assert not directory.control_plane_reachable


@pytest.mark.parametrize("snapshot", [None, b"", b"{", b'{"number": "many"}'])
async def test_without_a_good_snapshot_it_waits_for_the_control_plane(store: FileStore, snapshot: bytes | None) -> None:
    if snapshot is not None:
        store.write(SNAPSHOT, snapshot)
    source = Source()
    directory = Directory(store, source)
    await directory.load_snapshot()
    assert not directory.loaded
    source.put(5)
    async with following(directory):
        await until(lambda: directory.loaded)


async def test_each_new_table_is_taken_and_the_next_one_asked_for(store: FileStore) -> None:
    store.write(SNAPSHOT, table(1).model_dump_json().encode())
    source = Source()
    directory = Directory(store, source)
    await directory.load_snapshot()
    held = directory.table
    async with following(directory):
        source.put(2)
        source.answers.put_nowait(None)  # nothing new
        source.put(3)
        await until(lambda: len(source.asked_after) == 4)
    assert directory.table == table(3)
    assert source.asked_after == [1, 2, 2, 3]
    assert held == table(1)  # a request keeps the table it began with
    assert directory.control_plane_reachable


async def test_a_failing_source_is_asked_again_and_the_table_kept(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    store.write(SNAPSHOT, table(1).model_dump_json().encode())
    source = Source()
    directory = Directory(store, source)
    await directory.load_snapshot()
    async with following(directory):
        source.answers.put_nowait(ConnectionError())
        source.answers.put_nowait(TimeoutError())
        source.answers.put_nowait(b"not a table")
        await until(lambda: len(source.asked_after) == 4)
        assert directory.table == table(1)
        source.put(2)
        await until(lambda: directory.table == table(2))
    assert source.asked_after == [1, 1, 1, 1, 2]


async def test_an_older_table_is_not_taken(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control plane that was replaced and does not know it yet may still answer."""
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    source = Source()
    directory = Directory(store, source)
    async with following(directory):
        source.put(3, 2)
        await until(lambda: len(source.asked_after) == 3)
        assert directory.table == table(3)
        source.put(4)
        await until(lambda: directory.table == table(4))
    assert source.asked_after[:3] == [0, 3, 3]


class Handle:
    """A handle to units."""

    def __init__(self, application: str):
        self.application = application
        self.shut_down = asyncio.Event()

    async def shutdown_async(self) -> None:
        self.shut_down.set()


async def test_the_handle_of_what_has_left_the_table_is_shut_down(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANDLE_GRACE_S", 0.0)
    directory = Directory(store, NoControlPlane(), Handle)
    directory._take(table(1).model_dump_json().encode())
    first = directory.handle("ep-1.r-r1")
    directory._take(table(2).model_dump_json().encode())
    assert directory.handle("ep-1.r-r1") is first
    directory._take(RoutingTable(number=3).model_dump_json().encode())
    directory._take(table(4).model_dump_json().encode())
    again = directory.handle("ep-1.r-r1")
    async with asyncio.timeout(WAIT_S):
        await first.shut_down.wait()
    assert again is not first
    assert not again.shut_down.is_set()


async def test_a_handle_that_is_given_up_is_shut_down_and_the_next_request_makes_another(store: FileStore) -> None:
    directory = Directory(store, NoControlPlane(), Handle)
    directory._take(table(1).model_dump_json().encode())
    first = directory.handle("ep-1.r-r1")
    directory.release("ep-1.r-r1")
    directory.release("ep-1.r-r2")
    again = directory.handle("ep-1.r-r1")
    async with asyncio.timeout(WAIT_S):
        await first.shut_down.wait()
    assert again is not first
    assert not again.shut_down.is_set()


async def test_a_handle_goes_on_for_a_while_for_the_calls_that_are_under_way(store: FileStore) -> None:
    directory = Directory(store, NoControlPlane(), Handle)
    directory._take(table(1).model_dump_json().encode())
    handle = directory.handle("ep-1.r-r1")
    directory._take(RoutingTable(number=2).model_dump_json().encode())
    await asyncio.sleep(0.02)
    assert not handle.shut_down.is_set()
