"""Records as rows of their tables, and rows as records."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic_core import to_json
from sqlalchemy import JSON, Row, Table

from app.core.records import ApiKey, Endpoint, Model, Record, Version
from app.store.tables import TABLES

R = TypeVar("R", bound=Record)

READ_AGAIN = (ApiKey, Endpoint, Model, Version)
"""Kinds that are read all at once and all the time, of which few change in between."""


def raw_json(text: str | bytes) -> bytes:
    """A document as the database keeps it; only the record that it belongs to is parsed, once."""
    return text.encode() if isinstance(text, str) else bytes(text)


def to_row(table: Table, record: Record) -> Mapping[str, object]:
    """The values of the record's columns."""
    plain = record.model_dump(mode="json")
    return {
        column.name: plain[column.name] if isinstance(column.type, JSON) else getattr(record, column.name)
        for column in table.columns
    }


class RowReader:
    """Makes records of rows. One that is as it was the last time gives the same record again: records are frozen."""

    def __init__(self, most: int = 20_000) -> None:
        self._most = most
        self._last: dict[tuple[type[Record], str], tuple[tuple[Any, ...], Record]] = {}

    def records(self, kind: type[R], rows: Iterable[Row[Any]]) -> list[R]:
        """The records of rows that hold all columns in their order; documents are `raw_json`."""
        if kind not in READ_AGAIN:
            return [_parsed(kind, tuple(row)) for row in rows]
        return [self._remembered(kind, tuple(row)) for row in rows]

    def _remembered(self, kind: type[R], row: tuple[Any, ...]) -> R:
        row_before, record = self._last.get((kind, row[0]), (None, None))
        if row_before != row or not isinstance(record, kind):
            record = _parsed(kind, row)
            if len(self._last) >= self._most:
                self._last.clear()
            self._last[kind, row[0]] = (row, record)
        return record


def _parsed(kind: type[R], row: tuple[Any, ...]) -> R:
    plain: dict[str, object] = {}
    parts: list[bytes] = []
    for column, value in zip(TABLES[kind].columns, row, strict=True):
        if isinstance(value, bytes):
            parts.append(b',"%s":%s' % (column.name.encode(), value))
        else:
            plain[str(column.name)] = value  # a plain string: SQLAlchemy's own kind takes ten times as long from here
    # By way of JSON, because strict specs take their nested parts as objects or as JSON, not as dicts.
    return kind.model_validate_json(to_json(plain)[:-1] + b"".join(parts) + b"}")
