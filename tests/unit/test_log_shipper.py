"""Engines' logs on their way into the object store, and what is left of them when a unit is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.core.keys import issue_key
from app.core.log_lines import LogLine, read
from app.store.file_store import FileStore
from app.store.layout import LOGS, parse_log_name
from app.store.object_store import StoreUnavailable
from app.unit import log_shipper
from app.unit.log_shipper import OBJECT_BYTES, READ_BYTES, LogShipper, ship_leftovers

MOMENT = datetime(2026, 1, 31, 9, 59, 58, tzinfo=UTC)
ENDPOINT = "ep-20260131093000-abcde"


class Clock:
    """A wall clock that tests set."""

    def __init__(self) -> None:
        self.moment = MOMENT

    def __call__(self) -> datetime:
        return self.moment


class Store(FileStore):
    """One that can be away."""

    away = False
    writes = 0

    def write(self, name: str, data: bytes) -> None:
        if self.away:
            raise StoreUnavailable("no answer")
        self.writes += 1
        super().write(name, data)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "objects")


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    return tmp_path / "logs" / f"engine-{ENDPOINT}.r-0a1b2c3d-unit1.log"


@pytest.fixture
def shipper(store: Store, log_file: Path, clock: Clock) -> Iterator[LogShipper]:
    shipper = LogShipper(store, log_file, ENDPOINT, "unit1", now=clock)
    yield shipper
    shipper.close()


def append(log_file: Path, text: str) -> None:
    with log_file.open("a") as file:
        file.write(text)


def lines(store: FileStore) -> list[LogLine]:
    found = []
    for stored in store.list(LOGS):
        known = parse_log_name(stored.name)
        assert known
        assert known.endpoint_id == ENDPOINT
        found += read(store.read(stored.name).decode(), known.unit, known.number)
    return found


def texts(store: FileStore) -> list[str]:
    return [line.text for line in lines(store)]


def names(store: FileStore) -> list[str]:
    return [stored.name for stored in store.list(LOGS)]


def test_lines_are_brought_as_they_come(store: Store, log_file: Path, shipper: LogShipper, clock: Clock) -> None:
    append(log_file, "one\ntwo\nthr")
    shipper.ship()
    assert texts(store) == ["one", "two"]
    clock.moment += timedelta(seconds=1)
    append(log_file, "ee\n\n")
    shipper.ship()
    assert texts(store) == ["one", "two", "three"]
    assert [line.place.written_at[-7:] for line in lines(store)] == ["58.000Z", "58.000Z", "59.000Z"]
    assert names(store) == [f"logs/{ENDPOINT}/20260131T09-unit1-00000.log"]


def test_nothing_new_is_nothing_written(store: Store, log_file: Path, shipper: LogShipper) -> None:
    shipper.ship()
    append(log_file, "one\n")
    shipper.ship()
    shipper.ship()
    append(log_file, "no end yet")
    shipper.ship()
    assert store.writes == 1


def test_the_last_words_need_no_end(store: Store, log_file: Path, shipper: LogShipper) -> None:
    append(log_file, "Killed by")
    shipper.say("the engine died")
    shipper.ship(whole=True)
    assert texts(store) == ["the engine died", "Killed by"]


def test_another_hour_begins_another_object(store: Store, log_file: Path, shipper: LogShipper, clock: Clock) -> None:
    append(log_file, "before\n")
    shipper.ship()
    clock.moment += timedelta(seconds=2)
    append(log_file, "after\n")
    shipper.ship()
    assert names(store) == [f"logs/{ENDPOINT}/20260131T{hour}-unit1-00000.log" for hour in ("09", "10")]


def test_a_long_log_is_many_objects_and_nothing_is_lost(store: Store, log_file: Path, shipper: LogShipper) -> None:
    wanted = [f"line {number} {'x' * 90}" for number in range(10_000)]
    append(log_file, "\n".join(wanted) + "\n")
    shipper.ship()
    assert texts(store) == wanted
    assert len(names(store)) > 2
    assert max(stored.size_bytes for stored in store.list(LOGS)) < OBJECT_BYTES + 2 * READ_BYTES


def test_no_key_reaches_the_store_wherever_a_line_is_cut(store: Store, log_file: Path, shipper: LogShipper) -> None:
    key = issue_key()
    append(log_file, f"with {key}\n" + "x" * (READ_BYTES - 20) + key + "y" * READ_BYTES + f" {key}\nnext\n")
    shipper.ship()
    assert [text[:10] for text in texts(store)] == ["with mu-**", "x" * 10, "next"]
    stored = b"".join(store.read(name) for name in names(store)).decode()
    assert not any(key[start : start + 12] in stored for start in range(3, len(key) - 12))


def test_a_store_that_was_away_gets_everything_later(store: Store, log_file: Path, shipper: LogShipper) -> None:
    append(log_file, "one\n")
    shipper.say("said")
    store.away = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            shipper.ship()
    append(log_file, "two\n")
    store.away = False
    shipper.ship()
    assert texts(store) == ["said", "one", "two"]


def test_a_day_has_only_so_much_of_it(store: Store, log_file: Path, clock: Clock) -> None:
    shipper = LogShipper(store, log_file, ENDPOINT, "unit1", now=clock, day_bytes=300 << 10)
    for _ in range(40):
        append(log_file, f"{'x' * 99}\n" * 100)
        shipper.ship()
    assert sum(stored.size_bytes for stored in store.list(LOGS)) < 310 << 10
    assert texts(store)[-1] == "the rest of this day's log is left out: there are 0 MiB of it already"
    clock.moment += timedelta(days=1)
    append(log_file, "a new day\n")
    shipper.ship()
    assert texts(store)[-1] == "a new day"
    shipper.close()


def test_the_endpoints_other_units_count_on_the_same_day(store: Store, log_file: Path, clock: Clock) -> None:
    store.write(f"logs/{ENDPOINT}/20260131T01-other-00000.log", bytes(1000))
    shipper = LogShipper(store, log_file, ENDPOINT, "unit1", now=clock, day_bytes=1000)
    append(log_file, "too much\n")
    shipper.ship()
    assert "too much" not in str(store.read(f"logs/{ENDPOINT}/20260131T09-unit1-00000.log"))
    shipper.close()


def test_a_local_log_that_was_brought_is_emptied_when_it_is_long(
    store: Store, log_file: Path, shipper: LogShipper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_shipper, "LOCAL_BYTES", 100)
    with log_file.open("a") as engine:  # which goes on appending, as an engine does
        engine.write(f"{'x' * 120}\n")
        engine.flush()
        shipper.ship()
        assert log_file.stat().st_size == 0
        engine.write("further\n")
        engine.flush()
        shipper.ship()
    assert texts(store) == ["x" * 120, "further"]


KILLED = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from app.store.file_store import FileStore
from app.unit.log_shipper import LogShipper
log_file = Path(sys.argv[2])
shipper = LogShipper(FileStore(Path(sys.argv[1])), log_file, sys.argv[3], "unit1")
log_file.write_text("one\\n")
shipper.ship()
log_file.write_text("one\\ntwo\\nthe last wor")
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_unit_has_left_is_brought_by_the_next(store: Store, tmp_path: Path, log_file: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "objects"), str(log_file), ENDPOINT]
    unit = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert unit.stdout
    assert unit.stdout.readline() == "ready\n"
    ship_leftovers(store, log_file.parent)
    assert texts(store) == ["one"]  # the unit lives, so its log is its own business
    os.kill(unit.pid, signal.SIGKILL)
    unit.wait()
    written_at = datetime(2026, 1, 31, 23, 0, tzinfo=UTC).timestamp()
    os.utime(log_file, (written_at, written_at))
    ship_leftovers(store, log_file.parent)
    assert sorted(texts(store)) == ["one", "the last wor", "two"]
    assert f"logs/{ENDPOINT}/20260131T23-unit1-00000.log" in names(store)  # when it was written, not when brought
    ship_leftovers(store, log_file.parent)
    assert sorted(texts(store)) == ["one", "the last wor", "two"]


def test_leftovers_never_replace_what_was_brought(store: Store, log_file: Path, clock: Clock) -> None:
    for text in ("one\n", "two\n"):
        shipper = LogShipper(store, log_file, ENDPOINT, "unit1", now=clock)
        append(log_file, text)
        shipper.ship()
        shipper.close()
    assert texts(store) == ["one", "two"]
    assert len(names(store)) == 2


def test_leftovers_that_cannot_be_brought_wait(store: Store, log_file: Path) -> None:
    log_file.parent.mkdir()
    log_file.write_text("left\n")
    store.away = True
    ship_leftovers(store, log_file.parent)
    store.away = False
    ship_leftovers(store, log_file.parent)
    assert texts(store) == ["left"]


def test_marks_go_with_their_logs_unless_their_unit_lives(store: Store, log_file: Path, shipper: LogShipper) -> None:
    mark = log_file.with_name(log_file.name + ".shipped")
    log_file.unlink()
    ship_leftovers(store, log_file.parent)
    assert mark.exists()
    shipper.close()
    ship_leftovers(store, log_file.parent)
    assert not mark.exists()


def test_a_broken_mark_means_from_the_beginning(store: Store, log_file: Path) -> None:
    log_file.parent.mkdir()
    log_file.write_text("one\n")
    log_file.with_name(log_file.name + ".shipped").write_text("nonsense")
    shipper = LogShipper(store, log_file, ENDPOINT, "unit1")
    shipper.ship()
    shipper.close()
    assert texts(store) == ["one"]
