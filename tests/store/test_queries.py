"""What is found, in which order and in which pages, and what goes first."""

from datetime import timedelta, timezone

import pytest

from app.core.records import ApiKey, Endpoint, Event, Workspace
from app.store.database import Registry
from tests.store.records import ALL, ENDPOINT, KEY, NOW, WORKSPACE, event


def at(number: int, second: float) -> Event:
    return event(number, created_at=NOW + timedelta(seconds=second))


MOMENTS = (at(4, 0), at(2, 1), at(3, 1), at(1, 1), at(5, 2.5))
"""Three of one moment: their IDs put them in order."""
IN_ORDER = [4, 1, 2, 3, 5]


def numbers(events: list[Event]) -> list[int]:
    return [int(found.id[3:]) for found in events]


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


def test_a_page_after_what_belongs_to_others_is_refused_as_one_after_nothing(registry: Registry) -> None:
    """Else a page token would tell which IDs there are in other workspaces."""
    registry.put(*ALL)
    said = set()
    for unknown_or_theirs in ("ep-9", ENDPOINT.id):
        with pytest.raises(ValueError, match="no Endpoint with the ID") as refused:
            registry.find(Endpoint, workspace="theirs", after=unknown_or_theirs)
        said.add(str(refused.value))
    assert len(said) == 1
    changed = ENDPOINT.model_copy(update={"state": "healthy"})
    registry.put(changed)
    assert registry.find(Endpoint, workspace=ENDPOINT.workspace, state=ENDPOINT.state, after=ENDPOINT.id) == []


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


def test_what_is_past_its_time_goes_oldest_first(registry: Registry) -> None:
    registry.put(WORKSPACE, *MOMENTS)
    later = NOW + timedelta(seconds=2)
    assert registry.delete_before(Event, later, limit=3) == 3
    assert numbers(registry.find(Event)) == [3, 5]
    assert registry.delete_before(Event, later) == 1
    assert registry.delete_before(Event, later) == 0
    assert numbers(registry.find(Event)) == [5]
