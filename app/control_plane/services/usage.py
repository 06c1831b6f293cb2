"""Usage: what routers have counted, added up by hour; and what it comes to."""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from pydantic import ValidationError

from app.core.errors import BadRequest, Forbidden, NotFound
from app.core.keys import covers, is_platform_admin
from app.core.records import ApiKey, Endpoint, UsageHour, UsageSpool
from app.core.usage import DESCRIBED, Sums, UsageBatch, UsageRow
from app.store.database import Registry

GroupBy = Literal["day", "hour", "workspace", "endpoint", "key"]
ALL_WORKSPACES = "all"

_SUMS = tuple(Sums.model_fields)
_FIELDS: dict[GroupBy, str] = {
    "day": "day", "hour": "created_at", "workspace": "workspace", "endpoint": "endpoint_id", "key": "key_id",
}  # fmt: skip
_NAMES = {"endpoint": "endpoint_name", "key": "key_description"}
_HOUR = "%Y-%m-%dT%H:%M:%SZ"
_BETWEEN = "~"
"""In page tokens; no ID has it."""


@dataclass(frozen=True)
class UsageGroup:
    """What some requests that have something in common have taken together."""

    id: str
    """Of the group within its list."""
    common: Mapping[str, str]
    sums: Sums


class Usage:
    """The usage of all workspaces."""

    def __init__(self, registry: Registry, now: Callable[[], datetime]):
        self._registry = registry
        self._now = now
        self._taking = threading.Lock()
        """Held while rows are read, added to and written; nobody else writes them."""

    def take(self, batch: str) -> int:
        """Add a UsageBatch, as JSON, to the hours; returns up to where its spool is taken.

        One that does not go on where the spool was taken to before changes nothing: it comes twice, or too early.
        Raises BadRequest for what is no batch.
        """
        try:
            parsed = UsageBatch.model_validate_json(batch)
        except ValidationError:
            raise BadRequest("This is not a batch of usage.") from None
        with self._taking:
            spool = self._registry.get(UsageSpool, parsed.spool)
            taken_bytes = spool.taken_bytes if spool else 0
            if parsed.from_bytes != taken_bytes or parsed.to_bytes <= taken_bytes:
                return taken_bytes
            taken = UsageSpool(id=parsed.spool, created_at=self._now(), taken_bytes=parsed.to_bytes)
            self._registry.put(*self._with(parsed.rows), taken)  # all of it or nothing
            return parsed.to_bytes

    def find(
        self,
        caller: ApiKey,
        by: Collection[GroupBy],
        after: str | None,
        limit: int,
        **filters: Any,
    ) -> Sequence[UsageGroup]:
        """Groups of equal `by`, in the order of GroupBy; `filters` as in `totals`.

        Raises as that does, and ValueError for an `after` that is no group's ID.
        """
        order = [name for name in get_args(GroupBy) if name in by]
        place = None if after is None else list(_values(order, after))
        rows = self._registry.sums(
            UsageHour, _SUMS, [_FIELDS[name] for name in order],
            greatest=[_NAMES[name] for name in order if name in _NAMES],
            after=place, limit=limit, **self._wanted(caller, **filters),
        )  # fmt: skip
        names = self._names(rows)
        return [_group(order, row, names) for row in rows]

    def totals(self, caller: ApiKey, **filters: Any) -> Sums:
        """All together. `filters`: `workspace` (the caller's own without it), `endpoint`, `key`, `since`, `until`.

        Hours count as a whole, the one that `since` lies in too. Raises Forbidden for others' workspaces, and NotFound
        for an endpoint outside the key's list.
        """
        (row,) = self._registry.sums(UsageHour, _SUMS, **self._wanted(caller, **filters))
        return Sums(**row)

    def _wanted(
        self,
        caller: ApiKey,
        workspace: str | None = None,
        endpoint: str | None = None,
        key: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> dict[str, Any]:
        if workspace not in (None, caller.workspace) and not is_platform_admin(caller):
            raise Forbidden("Only the platform's admins (role admin, workspace default) read other workspaces' usage.")
        if endpoint is not None and not covers(caller, endpoint):
            raise NotFound(f"There is no endpoint {endpoint}.")
        wanted: dict[str, Any] = {"until": until}
        if workspace != ALL_WORKSPACES:
            wanted["workspace"] = workspace or caller.workspace
        if endpoint is not None or caller.endpoints is not None:
            wanted["endpoint_id"] = endpoint or caller.endpoints
        if key is not None:
            wanted["key_id"] = key
        if since is not None:
            wanted["since"] = since.replace(minute=0, second=0, microsecond=0)
        return wanted

    def _names(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """What endpoints and keys are called now, by ID."""
        endpoints = {row["endpoint_id"] for row in rows if "endpoint_id" in row}
        keys = {row["key_id"] for row in rows if "key_id" in row}
        found = (
            {one.id: one.spec.name for one in self._registry.find(Endpoint, id=list(endpoints))} if endpoints else {}
        )
        return found | (
            {one.id: one.description[:DESCRIBED] for one in self._registry.find(ApiKey, id=list(keys))} if keys else {}
        )

    def _with(self, rows: Sequence[UsageRow]) -> Iterator[UsageHour]:
        """The hours with these rows added."""
        before = {hour.id: hour for hour in self._registry.find(UsageHour, id=[_id(row) for row in rows])}
        new = [row.model_dump() for row in rows if _id(row) not in before]
        names = self._names(new)
        for row in rows:
            hour = before.get(_id(row)) or _begun(row, names)
            yield hour.model_copy(update={name: getattr(hour, name) + getattr(row, name) for name in _SUMS})


def _id(row: UsageRow) -> str:
    return f"{row.hour}:{row.workspace}:{row.endpoint_id}:{row.key_id}"


def _begun(row: UsageRow, names: Mapping[str, str]) -> UsageHour:
    return UsageHour(
        id=_id(row),
        created_at=row.begins_at,
        day=f"{row.begins_at:%Y-%m-%d}",
        workspace=row.workspace,
        endpoint_id=row.endpoint_id,
        endpoint_name=names.get(row.endpoint_id, ""),
        key_id=row.key_id,
        key_description=names.get(row.key_id, ""),
    )


def _group(order: Sequence[GroupBy], row: Mapping[str, Any], names: Mapping[str, str]) -> UsageGroup:
    common: dict[str, str] = {}
    for name in order:
        value = row[_FIELDS[name]]
        common[name] = value.strftime(_HOUR) if isinstance(value, datetime) else value
        if name in _NAMES:
            common[_NAMES[name]] = names.get(value) or row[_NAMES[name]]
    id = _BETWEEN.join(common[name] for name in order)
    return UsageGroup(id, common, Sums(**{name: row[name] for name in _SUMS}))


def _values(order: Sequence[GroupBy], id: str) -> Iterator[object]:
    """What a group of this ID has in common. Raises ValueError."""
    for name, text in zip(order, id.split(_BETWEEN), strict=True):
        yield datetime.strptime(text, _HOUR).replace(tzinfo=UTC) if name == "hour" else text
