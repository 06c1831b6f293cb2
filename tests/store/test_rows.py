import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON

from app.core.records import Endpoint, Job, Record, Workspace
from app.core.specs import EndpointSpec
from app.store.rows import RowReader, raw_json, to_row
from app.store.tables import TABLES

NOW = datetime(2026, 1, 31, 9, 30, 0, 123456, tzinfo=UTC)
JOB = Job(id="job-1", created_at=NOW, workspace="w", type="finetune", name="t", state="queued", spec={"数": [1, None]})


def endpoint(number: int, **changes: Any) -> Endpoint:
    spec = EndpointSpec(name=f"e-{number}", model="m-1")
    fields: dict[str, Any] = {"id": f"ep-{number}", "created_at": NOW, "workspace": "w", "spec": spec}
    return Endpoint.model_validate(fields | changes)


def row(record: Record) -> Any:
    """As the database gives it."""
    table = TABLES[type(record)]
    values = to_row(table, record)
    return tuple(
        raw_json(json.dumps(values[column.name])) if isinstance(column.type, JSON) else values[column.name]
        for column in table.columns
    )


def test_rows_become_the_records_they_were() -> None:
    for record in (endpoint(1), JOB, Workspace(id="w", created_at=NOW, name='"quoted"')):
        assert RowReader().records(type(record), [row(record)]) == [record]


def test_an_unchanged_row_is_not_read_anew_and_a_changed_one_is() -> None:
    reader = RowReader()
    [first] = reader.records(Endpoint, [row(endpoint(1))])
    [again] = reader.records(Endpoint, [row(endpoint(1))])
    assert again is first
    renamed = EndpointSpec(name="other", model="m-1")
    for changed in (endpoint(1, state="healthy"), endpoint(1, spec=renamed), endpoint(1, deleted_at=NOW)):
        assert reader.records(Endpoint, [row(changed)]) == [changed]


def test_only_so_many_are_remembered() -> None:
    reader = RowReader(most=3)
    for number in range(10):
        reader.records(Endpoint, [row(endpoint(number))])
        assert len(reader._last) <= 3
    many = [endpoint(number) for number in range(10)]
    assert reader.records(Endpoint, [row(one) for one in many]) == many


def test_records_that_callers_could_change_are_made_anew() -> None:
    reader = RowReader()
    [first], [again] = (reader.records(Job, [row(JOB)]) for _ in range(2))
    assert first == again
    assert first is not again
