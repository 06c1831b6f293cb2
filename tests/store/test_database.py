import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from app.core.errors import BadRequest, Conflict, Unavailable
from app.core.records import (
    ApiKey,
    AuditEntry,
    Counted,
    Endpoint,
    EndpointMinute,
    Event,
    Job,
    Member,
    Model,
    Record,
    Replay,
    Version,
    Workspace,
)
from app.core.specs import EndpointSpec, EngineSpec, ScaleSpec
from app.store.connections import driver_url
from app.store.database import Registry
from app.store.tables import TABLES, metadata

NOW = datetime(2026, 1, 31, 9, 30, 0, 123456, tzinfo=UTC)

WORKSPACE = Workspace(id="default", created_at=NOW, name="default")
MODEL = Model(id="m-1", created_at=NOW, workspace="default", name="小模型", base_model="qwen", state="healthy")
VERSION = Version(
    id="v-1", created_at=NOW, model_id="m-1", precision="BF16", prefix="models/m-1/BF16/", digest="d", state="healthy"
)
ENDPOINT = Endpoint(
    id="ep-1",
    created_at=NOW,
    workspace="default",
    spec=EndpointSpec(
        name="demo", model="m-1", scale=ScaleSpec(min_units=1, max_units=3), engine=EngineSpec(kv_cache_bytes=1 << 33)
    ),
)
JOB = Job(
    id="job-1",
    created_at=NOW,
    workspace="default",
    type="finetune",
    name="tune",
    state="queued",
    spec={"learning_rate": 2e-05, "dataset": {"uri": "file:///数据"}, "layers": [1, None, True]},
)
KEY = ApiKey(
    id="key-1",
    created_at=NOW,
    workspace="default",
    role="admin",
    hash="h",
    prefix="mu-abc",
    endpoints=("ep-1", "ep-2"),
    expires_at=NOW,
)
EVENT = Event(id="ev-1", created_at=NOW, workspace="default", subject="ep-1", kind="state", message="healthy")
MEMBER = Member(id="mem-1", created_at=NOW, workspace="default", name="小王", role="developer", expires_at=NOW)
AUDIT = AuditEntry(
    id="aud-1",
    created_at=NOW,
    workspace="default",
    actor="key-1",
    request_id="r",
    action="POST /platform/v1/endpoints",
    subject="ep-1",
    status=202,
)
MINUTE = EndpointMinute(id="min-1", created_at=NOW, endpoint_id="ep-1", figures={"requests": 3, "ttft_ms": 81.5})
COUNTED = Counted(id="router-1", created_at=NOW, started_at=1.7e9, counters={"ep-1": {"requests": 3}})
REPLAY = Replay(id="rep-1", created_at=NOW, workspace="default", body_hash="b", record_id="ep-1")
ALL = (WORKSPACE, MODEL, VERSION, ENDPOINT, JOB, MEMBER, KEY, EVENT, AUDIT, MINUTE, COUNTED, REPLAY)


def event(number: int, **changes: object) -> Event:
    return EVENT.model_copy(update={"id": f"ev-{number:04}", **changes})


def test_every_field_of_every_record_has_a_column() -> None:
    assert set(TABLES) == set(Record.__subclasses__())
    for kind, table in TABLES.items():
        assert set(kind.model_fields) == set(table.columns.keys()), kind


def test_migrations_make_what_the_tables_say(registry: Registry, database_url: str) -> None:
    engine = sa.create_engine(driver_url(database_url))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_records_come_back_as_they_were_put(registry: Registry) -> None:
    registry.put(*reversed(ALL))  # owners last: the registry sorts
    for record in ALL:
        assert registry.get(type(record), record.id) == record
    assert registry.get(Model, "m-2") is None


def test_putting_again_replaces(registry: Registry) -> None:
    registry.put(*ALL)
    changed = ENDPOINT.model_copy(update={"state": "healthy", "revision": "r-1", "generation": 2})
    registry.put(changed)
    assert registry.find(Endpoint) == [changed]


def test_the_last_of_one_put_wins(registry: Registry) -> None:
    registry.put(WORKSPACE, WORKSPACE.model_copy(update={"name": "other"}))
    assert [workspace.name for workspace in registry.find(Workspace)] == ["other"]


def test_find_orders_by_time_then_id(registry: Registry) -> None:
    registry.put(WORKSPACE, event(3), event(2), event(1, created_at=NOW + timedelta(microseconds=1)))
    assert [found.id for found in registry.find(Event, subject="ep-1", kind="state")] == [
        "ev-0002",
        "ev-0003",
        "ev-0001",
    ]
    assert registry.find(Event, subject="ep-2") == []


def test_find_by_none_by_time_and_by_nonsense(registry: Registry) -> None:
    endless = KEY.model_copy(update={"id": "key-2", "hash": "h2", "expires_at": None})
    registry.put(WORKSPACE, KEY, endless, ENDPOINT)
    assert registry.find(ApiKey, expires_at=None) == [endless]
    assert registry.find(ApiKey, expires_at=NOW.astimezone(timezone(timedelta(hours=8)))) == [KEY]
    with pytest.raises(ValueError, match="by 'nmae'"):
        registry.find(Workspace, nmae="x")
    with pytest.raises(ValueError, match="by 'spec'"):
        registry.find(Endpoint, spec={})


def test_find_by_one_of_several(registry: Registry) -> None:
    registry.put(WORKSPACE, *(event(n, kind=kind) for n, kind in enumerate(["a", "b", "c"])))
    ids = [found.id for found in registry.find(Event, kind=["a", "c", "d"])]
    assert ids == ["ev-0000", "ev-0002"]
    assert registry.find(Event, kind=()) == []
    endless = KEY.model_copy(update={"id": "key-2", "hash": "h2", "expires_at": None})
    registry.put(KEY, endless)
    assert registry.find(ApiKey, expires_at=(NOW, None)) == [KEY, endless]
    assert registry.find(ApiKey, expires_at=[None]) == [endless]


def at(number: int, second: float) -> Event:
    return event(number, created_at=NOW + timedelta(seconds=second))


MOMENTS = (at(4, 0), at(2, 1), at(3, 1), at(1, 1), at(5, 2.5))
"""Three of one moment: their IDs put them in order."""
IN_ORDER = [4, 1, 2, 3, 5]


def numbers(events: list[Event]) -> list[int]:
    return [int(found.id[3:]) for found in events]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_pages_show_everything_once_and_in_order(registry: Registry, size: int, newest_first: bool) -> None:
    registry.put(WORKSPACE, *MOMENTS, event(9, subject="ep-2"))
    seen: list[int] = []
    page = registry.find(Event, subject="ep-1", limit=size, newest_first=newest_first)
    while page:
        assert len(page) <= size
        seen += numbers(page)
        page = registry.find(Event, subject="ep-1", limit=size, newest_first=newest_first, after=page[-1].id)
    assert seen == (IN_ORDER[::-1] if newest_first else IN_ORDER)


def test_a_page_after_nothing_known_is_refused(registry: Registry) -> None:
    registry.put(*ALL)
    with pytest.raises(ValueError, match="no Event with the ID"):
        registry.find(Event, after="ev-2")
    with pytest.raises(ValueError, match="no Event"):
        registry.find(Event, after=ENDPOINT.id)  # known, but as something else


def test_find_within_a_time(registry: Registry) -> None:
    registry.put(WORKSPACE, *MOMENTS)
    second = NOW + timedelta(seconds=1)
    elsewhere = second.astimezone(timezone(timedelta(hours=8)))
    assert numbers(registry.find(Event, since=elsewhere)) == [1, 2, 3, 5]
    assert numbers(registry.find(Event, until=second)) == [4]
    later = second + timedelta(microseconds=1)
    assert numbers(registry.find(Event, since=second, until=later, newest_first=True, limit=2)) == [3, 2]


def test_count(registry: Registry) -> None:
    registry.put(WORKSPACE, *MOMENTS, event(9, subject="ep-2"))
    assert registry.count(Event) == 6
    assert registry.count(Event, subject=["ep-1", "ep-3"], kind="state") == 5
    with pytest.raises(ValueError, match="by 'spec'"):
        registry.count(Endpoint, spec=1)


def test_times_keep_their_moment_and_come_back_in_utc(registry: Registry) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-9, minutes=-30)))
    registry.put(WORKSPACE.model_copy(update={"created_at": elsewhere}))
    [found] = registry.find(Workspace)
    assert found.created_at == NOW
    assert found.created_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize("end", [datetime.min, datetime.max])
def test_the_ends_of_the_calendar_come_back(registry: Registry, end: datetime) -> None:
    registry.put(WORKSPACE.model_copy(update={"created_at": end.replace(tzinfo=UTC)}))
    assert [found.created_at for found in registry.find(Workspace)] == [end.replace(tzinfo=UTC)]


def test_a_time_without_a_zone_is_refused(registry: Registry) -> None:
    with pytest.raises(sa.exc.StatementError, match="time zone"):
        registry.put(WORKSPACE.model_copy(update={"created_at": NOW.replace(tzinfo=None)}))


@pytest.mark.parametrize(
    ("twin", "message"),
    [
        (WORKSPACE, "Another of the workspaces has the same name"),
        (VERSION, "Another of the versions has the same model_id and precision"),
        (KEY, "Another of the api keys has the same hash"),
    ],
)
def test_unique_fields(registry: Registry, twin: Record, message: str) -> None:
    registry.put(*ALL)
    with pytest.raises(Conflict, match=message):
        registry.put(event(2), twin.model_copy(update={"id": "twin"}))
    assert registry.find(Event) == [EVENT]  # nothing of a failed put stays


def test_a_missing_owner_is_a_conflict(registry: Registry) -> None:
    with pytest.raises(Conflict, match="One of the models names a workspace that does not exist"):
        registry.put(MODEL)
    registry.put(WORKSPACE)
    with pytest.raises(Conflict, match="names a model_id that"):
        registry.put(VERSION)


def test_delete(registry: Registry) -> None:
    registry.put(*ALL)
    with pytest.raises(Conflict, match="One of the models still has records that refer to it"):
        registry.delete(MODEL, JOB)
    assert registry.get(Job, JOB.id) == JOB
    registry.delete(MODEL, VERSION)
    registry.delete(MODEL)
    assert registry.find(Model) == []


def test_events_go_with_their_workspace(registry: Registry) -> None:
    registry.put(WORKSPACE, EVENT)
    registry.delete(WORKSPACE)
    assert registry.find(Event) == []


def test_what_is_past_its_time_goes_oldest_first(registry: Registry) -> None:
    registry.put(WORKSPACE, *MOMENTS)
    later = NOW + timedelta(seconds=2)
    assert registry.delete_before(Event, later, limit=3) == 3
    assert numbers(registry.find(Event)) == [3, 5]
    assert registry.delete_before(Event, later) == 1
    assert registry.delete_before(Event, later) == 0
    assert numbers(registry.find(Event)) == [5]


def test_what_others_refer_to_does_not_go_by_its_age(registry: Registry) -> None:
    registry.put(*ALL)
    with pytest.raises(Conflict, match="workspaces still has records that refer to it"):
        registry.delete_before(Workspace, NOW + timedelta(1))
    assert registry.get(Workspace, WORKSPACE.id) == WORKSPACE


def audit_entry(days_ago: float, number: int = 1) -> AuditEntry:
    moment = datetime.now(UTC) - timedelta(days_ago)
    return AUDIT.model_copy(update={"id": f"aud-{number}", "created_at": moment})


def test_audit_entries_never_change(registry: Registry) -> None:
    young, old = audit_entry(1), audit_entry(500, 2)
    registry.put(young, old)
    for entry in (young, old):
        with pytest.raises(Conflict, match="stay as they are"):
            registry.put(entry.model_copy(update={"status": 500}))
    assert registry.find(AuditEntry, newest_first=True) == [young, old]


def test_not_even_sql_changes_or_empties_the_audit(registry: Registry) -> None:
    registry.put(audit_entry(1))
    statements = ["UPDATE audit SET status = 500", "DELETE FROM audit"]
    if registry._engine.dialect.name == "postgresql":
        statements.append("TRUNCATE audit")
    for statement in statements:
        with pytest.raises(sa.exc.IntegrityError), registry._engine.begin() as connection:
            connection.exec_driver_sql(statement)
    assert [entry.status for entry in registry.find(AuditEntry)] == [202]


def test_audit_entries_stay_for_400_days(registry: Registry) -> None:
    young, old = audit_entry(399.9), audit_entry(400.1, 2)
    registry.put(young, old)
    with pytest.raises(Conflict, match="for their time"):
        registry.delete(young)
    with pytest.raises(Conflict, match="for their time"):
        registry.delete_before(AuditEntry, datetime.now(UTC))
    assert registry.delete_before(AuditEntry, datetime.now(UTC) - timedelta(400)) == 1
    assert registry.find(AuditEntry) == [young]


def test_figures_go_with_their_endpoint_and_replays_with_their_workspace(registry: Registry) -> None:
    registry.put(WORKSPACE, ENDPOINT, MINUTE, REPLAY, AUDIT)
    registry.delete(ENDPOINT)
    assert registry.find(EndpointMinute) == []
    registry.delete(WORKSPACE)
    assert registry.find(Replay) == []
    assert registry.find(AuditEntry) == [AUDIT]


@pytest.mark.parametrize("database_url", [pytest.param("postgresql", marks=pytest.mark.service)], indirect=True)
def test_what_postgresql_cannot_keep_is_a_bad_request(registry: Registry) -> None:
    registry.put(WORKSPACE)
    for call in (lambda: registry.put(event(1, message="a\0b")), lambda: registry.find(Event, subject="\0")):
        with pytest.raises(BadRequest, match="NUL"):
            call()


def test_nothing_to_do_is_fine(registry: Registry) -> None:
    registry.put()
    registry.delete()


def test_threads_put_at_once(registry: Registry) -> None:
    registry.put(WORKSPACE)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: registry.put(event(number), event(number + 1000)), range(64)))
        counts = list(threads.map(lambda _: len(registry.find(Event)), range(8)))
    assert counts == [128] * 8


def test_one_of_many_takes_a_name(registry: Registry) -> None:
    def take(number: int) -> bool:
        try:
            registry.put(Workspace(id=f"ws-{number}", created_at=NOW, name="wanted"))
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(take, range(8))) == 1


def test_another_registry_sees_what_was_put(registry: Registry, open_registry: Callable[[], Registry]) -> None:
    registry.put(WORKSPACE)
    other = open_registry()
    other.migrate()  # a second time changes nothing
    assert other.find(Workspace) == [WORKSPACE]


def test_processes_migrate_at_once(database_url: str, open_registry: Callable[[], Registry]) -> None:
    script = (
        "import sys; from app.store.database import Registry; registry = Registry(sys.argv[1]);"
        "print('ready', flush=True); sys.stdin.readline(); registry.migrate()"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, database_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0]
    open_registry().put(*ALL)


def test_sqlite_writes_ahead_and_checks_keys(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path}/registry.db")
    registry.migrate()
    with registry._engine.connect() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        }
    registry.close()
    assert settings == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000}


@pytest.mark.parametrize("url", ["sqlite:///{folder}", "postgresql://u:secret@127.0.0.1:1/d"])
def test_a_database_that_cannot_be_used_is_unavailable(url: str, tmp_path: Path) -> None:
    registry = Registry(url.format(folder=tmp_path))  # a folder is no database
    for call in (lambda: registry.find(Event), lambda: registry.put(EVENT), registry.take_turn):
        with pytest.raises(Unavailable) as raised:
            call()
        assert str(raised.value) == "The registry cannot be used at the moment."


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "secret", "postgresql://u:secret@h:x/d"]
)
def test_other_addresses_are_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="postgresql://USER@HOST") as refused:
        Registry(url)
    assert "secret" not in str(refused.value)


def test_postgresql_goes_by_its_third_driver_and_waits_for_nothing_for_ever() -> None:
    url = driver_url("postgresql://u:p@h/d?connect_timeout=3")
    assert (url.drivername, url.password, url.query["connect_timeout"]) == ("postgresql+psycopg", "p", "3")
    assert "idle_in_transaction_session_timeout" in str(url.query["options"])
    theirs = driver_url("postgresql://h/d?options=-c%20lock_timeout%3D1s")
    assert theirs.query["options"] == "-c lock_timeout=1s -c timezone=UTC"
