"""What is asked of the registry, as SQL."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime

from sqlalchemy import JSON, ColumnElement, Select, Table, and_, false, func, literal, or_, select, tuple_

from app.core.records import Record
from app.store.tables import TABLES

OWNERS = ("workspace", "subject", "endpoint_id", "model_id")
"""Fields that say whose a record is; they never change."""


def conditions(
    kind: type[Record], equals: Mapping[str, object], since: datetime | None = None, until: datetime | None = None
) -> Iterator[ColumnElement[bool]]:
    """Records whose fields equal the values (None: have none; a collection: any of it), made in [since, until).

    Raises ValueError for a field that is unknown or is a document.
    """
    table = TABLES[kind]
    for name, value in equals.items():
        if name not in table.c or isinstance(table.c[name].type, JSON):
            raise ValueError(f"{kind.__name__} cannot be looked up by '{name}'")
        yield _is(table.c[name], value)
    if since is not None:
        yield table.c.created_at >= since
    if until is not None:
        yield table.c.created_at < until


def lasting(equals: Mapping[str, object]) -> dict[str, object]:
    """Of the conditions those that a record meets for good: a page may go on after one that has changed since."""
    return {name: value for name, value in equals.items() if name in OWNERS}


def ordered(table: Table, newest_first: bool) -> Select[tuple[object, ...]]:
    """All rows, by time and then by ID."""
    places = (table.c.created_at, table.c.id)
    return select(table).order_by(*(place.desc() if newest_first else place.asc() for place in places))


def beyond(table: Table, created_at: datetime, id: str, newest_first: bool) -> ColumnElement[bool]:
    """The rows that `ordered` shows after this one."""
    when, which = table.c.created_at, table.c.id
    # Said twice about the time, so that the database can begin at it in an index.
    if newest_first:
        return and_(when <= created_at, or_(when < created_at, which < id))
    return and_(when >= created_at, or_(when > created_at, which > id))


def added_up(
    table: Table, of: Sequence[str], by: Sequence[str], greatest: Sequence[str], after: Sequence[object] | None
) -> Select[tuple[object, ...]]:
    """The sums of columns by groups, in the groups' order and from the one after `after` on; without any, one row."""
    groups = [table.c[name] for name in by]
    sums = [func.coalesce(func.sum(table.c[name]), 0).label(name) for name in of]
    query = select(*groups, *(func.max(table.c[name]).label(name) for name in greatest), *sums)
    if not groups:
        return query
    if after is not None:
        place = [literal(value, group.type) for value, group in zip(after, groups, strict=True)]
        query = query.where(tuple_(*groups) > tuple_(*place))
    return query.group_by(*groups).order_by(*groups)


def _is(column: ColumnElement[object], value: object) -> ColumnElement[bool]:
    if isinstance(value, str) or not isinstance(value, Collection):
        return column == value
    some = [one for one in value if one is not None]
    wanted = column.in_(some) if some else false()
    return or_(wanted, column.is_(None)) if None in value else wanted
