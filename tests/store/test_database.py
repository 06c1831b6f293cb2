"""Records in the registry: put, replaced, refused, removed, by many at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from app.core.errors import BadRequest, Conflict
from app.core.records import ApiKey, AuditEntry, Endpoint, EndpointMinute, Event, Job, Model, Record, Replay, Workspace
from app.store.database import Registry
from app.store.tables import TABLES
from tests.store.records import (
    ALL,
    AUDIT,
    ENDPOINT,
    EVENT,
    JOB,
    KEY,
    MINUTE,
    MODEL,
    NOW,
    REPLAY,
    VERSION,
    WORKSPACE,
    event,
)


def test_every_field_of_every_record_has_a_column() -> None:
    assert set(TABLES) == set(Record.__subclasses__())
    for kind, table in TABLES.items():
        assert set(kind.model_fields) == set(table.columns.keys()), kind


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


def test_a_change_deletes_and_puts_all_or_nothing(registry: Registry) -> None:
    registry.put(WORKSPACE, KEY)
    again = KEY.model_copy(update={"id": "key-2"})  # with the hash of the one that leaves
    registry.change(put=[again, EVENT], delete=[KEY])
    assert (registry.find(ApiKey), registry.find(Event)) == ([again], [EVENT])
    orphan = EVENT.model_copy(update={"id": "ev-2", "workspace": "nowhere"})
    with pytest.raises(Conflict):
        registry.change(put=[orphan], delete=[again])
    with pytest.raises(Conflict):
        registry.change(put=[EVENT.model_copy(update={"id": "ev-3"}), ENDPOINT], delete=[WORKSPACE])
    assert (registry.find(ApiKey), registry.find(Event)) == ([again], [EVENT])


def test_events_go_with_their_workspace(registry: Registry) -> None:
    registry.put(WORKSPACE, EVENT)
    registry.delete(WORKSPACE)
    assert registry.find(Event) == []


def test_what_others_refer_to_does_not_go_by_its_age(registry: Registry) -> None:
    registry.put(*ALL)
    with pytest.raises(Conflict, match="workspaces still has records that refer to it"):
        registry.delete_before(Workspace, NOW + timedelta(1))
    assert registry.get(Workspace, WORKSPACE.id) == WORKSPACE


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
