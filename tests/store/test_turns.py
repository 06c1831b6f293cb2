"""Two control planes over one database: once the second has taken the turn, nothing of the first is written."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from app.core.errors import Superseded
from app.core.records import Event, Workspace
from app.store.database import Registry

NOW = datetime(2026, 1, 31, tzinfo=UTC)
WORKSPACE = Workspace(id="default", created_at=NOW, name="default")
THREADS = 4
TAKEOVERS = 6
AHEAD = 25
"""Writes that a writer gets in before the next one takes over."""
PAUSE_S = 0.01
"""Between two writes of a thread: SQLite has no queue, without a gap the one that follows might never get in."""

OpenRegistry = Callable[[], Registry]


def event(id: str, message: str = "") -> Event:
    return Event(id=id, created_at=NOW, workspace="default", subject="ep-1", kind="state", message=message)


def test_turns_count_up(registry: Registry, open_registry: OpenRegistry) -> None:
    assert [registry.take_turn(), open_registry().take_turn(), registry.take_turn()] == [1, 2, 3]


@pytest.mark.parametrize(
    "write",
    [
        lambda registry: registry.put(event("ev-2")),
        lambda registry: registry.put(event("ev-1", "changed")),
        lambda registry: registry.put(),
        lambda registry: registry.delete(event("ev-1")),
        lambda registry: registry.delete_before(Event, NOW + timedelta(1)),
        lambda registry: registry.check_turn(),
    ],
)
def test_whoever_lost_the_turn_writes_nothing(
    registry: Registry, open_registry: OpenRegistry, write: Callable[[Registry], object]
) -> None:
    second = open_registry()
    registry.take_turn()
    registry.put(WORKSPACE, event("ev-1"))
    second.take_turn()
    with pytest.raises(Superseded):
        write(registry)
    assert second.find(Event) == [event("ev-1")]
    assert registry.find(Event) == [event("ev-1")]  # it may still read


def test_whoever_has_the_turn_or_never_took_one_writes(registry: Registry, open_registry: OpenRegistry) -> None:
    second, tool = open_registry(), open_registry()
    registry.take_turn()
    second.take_turn()
    second.check_turn()
    second.put(WORKSPACE, event("ev-1"))
    tool.check_turn()
    tool.put(event("ev-2"))
    registry.take_turn()  # and back again
    registry.put(event("ev-3"))
    assert [found.id for found in second.find(Event)] == ["ev-1", "ev-2", "ev-3"]
    with pytest.raises(Superseded):
        second.put(event("ev-4"))


def test_a_turn_begins_after_the_transaction_that_the_one_before_is_in(
    registry: Registry, open_registry: OpenRegistry
) -> None:
    registry.put(WORKSPACE)
    registry.take_turn()
    second = open_registry()
    with ThreadPoolExecutor(1) as threads:
        with registry._write():
            taking = threads.submit(second.take_turn)
            with pytest.raises(TimeoutError):
                taking.result(0.3)
        assert taking.result(60) == 2


class Writer:
    """A control plane's threads, which write until they are told that another has taken over."""

    def __init__(self, registry: Registry, turn: int):
        self._registry = registry
        self._turn = turn
        self._count = 0
        self._counted = threading.Condition()
        self._threads = ThreadPoolExecutor(THREADS)
        self._runs = [self._threads.submit(self._write, number) for number in range(THREADS)]

    def _write(self, thread: int) -> str:
        for number in range(100_000):
            try:
                id = f"{self._turn:03}-{thread}-{number:05}"
                self._registry.put(event(id), event(f"last-of-{thread}", id))
            except Superseded:
                return f"{self._turn:03}-{thread}-{number:05}"
            with self._counted:
                self._count += 1
                self._counted.notify_all()
            time.sleep(PAUSE_S)
        raise AssertionError("nobody took over")

    def wait_for_some(self) -> None:
        """Until it is in the middle of its work."""
        with self._counted:
            assert self._counted.wait_for(lambda: self._count >= AHEAD, 60)

    def refused(self) -> set[str]:
        """The IDs of the writes that were refused, once every thread has met one."""
        found = {run.result(60) for run in self._runs}
        self._threads.shutdown()
        return found


def test_threads_of_writers_that_follow_each_other(registry: Registry, open_registry: OpenRegistry) -> None:
    registry.put(WORKSPACE)
    reader = open_registry()
    writer: Writer | None = None
    for _ in range(TAKEOVERS):
        following = open_registry()
        turn = following.take_turn()
        at_turn = by_id(reader)  # all that the one before has ever written, for the turn waits for it
        if writer:
            refused = writer.refused()
            assert by_id(reader) == at_turn
            assert not refused & at_turn.keys()
            assert {message for message in at_turn.values() if message} <= at_turn.keys()  # nothing by half
        writer = Writer(following, turn)
        writer.wait_for_some()
    registry.take_turn()
    assert writer is not None
    writer.refused()


def by_id(registry: Registry) -> dict[str, str]:
    return {found.id: found.message for found in registry.find(Event)}


WRITER = """
import datetime, itertools, sys, time
from app.core.errors import Superseded
from app.core.records import Event
from app.store.database import Registry
registry = Registry(sys.argv[1])
def event(id, message=""):
    now = datetime.datetime.now(datetime.UTC)
    return Event(id=id, created_at=now, workspace="default", subject="ep-1", kind="state", message=message)
print("ready", flush=True)
sys.stdin.readline()
turn = registry.take_turn()
for number in itertools.count():
    try:
        registry.put(event(f"{turn}-{number:05}"), event("last", str(turn)))
    except Superseded:
        print(number, flush=True)
        break
    time.sleep(0.001)  # SQLite has no queue: without a pause the other might never get in between
"""


def test_processes_that_follow_each_other(
    registry: Registry, database_url: str, request: pytest.FixtureRequest
) -> None:
    registry.put(WORKSPACE)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, database_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for writer in writers:  # one that is never superseded would write for ever
        request.addfinalizer(writer.kill)
    for turn, writer in enumerate(writers, start=1):
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
        wait_for(lambda turn=turn: last(registry) == str(turn))  # type: ignore[misc]
    registry.take_turn()
    for turn, writer in enumerate(writers, start=1):
        refused_at, _ = writer.communicate(timeout=60)
        assert writer.returncode == 0
        # Each has written what it wrote until then, whole and without gaps.
        theirs = [id for id in by_id(registry) if id.startswith(f"{turn}-")]
        assert theirs == [f"{turn}-{number:05}" for number in range(int(refused_at))]
    assert last(registry) == "2"


def last(registry: Registry) -> str | None:
    found = registry.get(Event, "last")
    return found and found.message


def wait_for(check: Callable[[], bool]) -> None:
    done = threading.Event()
    for _ in range(600):
        if check():
            return
        done.wait(0.1)
    raise AssertionError("waited 60 s")
