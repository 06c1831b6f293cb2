"""The routing table: built from records, numbered, saved, and waited for by routers."""

import threading
import time

from app.core.lifecycle import application_name
from app.core.records import ApiKey, Endpoint
from app.core.routing import Grant, Route, RoutingTable, Target
from app.store.database import Registry
from app.store.layout import SNAPSHOT
from app.store.objects import ObjectMissing, ObjectStore


class RoutingTables:
    """Publishes a new table whenever the records make one. Its number only ever grows, also over restarts."""

    def __init__(self, registry: Registry, store: ObjectStore):
        self._registry = registry
        self._store = store
        self._published = threading.Condition()
        self._table = RoutingTable()

    def load(self) -> None:
        """Go on from the saved table."""
        try:
            self._table = RoutingTable.model_validate_json(self._store.read(SNAPSHOT))
        except (ObjectMissing, ValueError):
            self._table = RoutingTable(number=int(time.time()))

    def publish(self) -> None:
        """Build the table again; if it differs, save it and wake the routers."""
        with self._published:
            table = self._build()
            if table.model_copy(update={"number": self._table.number}) == self._table:
                return
            self._store.write(SNAPSHOT, table.model_dump_json().encode())
            self._table = table
            self._published.notify_all()

    def wait(self, after: int, wait_s: float) -> bytes | None:
        """The table as JSON once its number is not `after`, or None. Blocks."""
        with self._published:
            if self._table.number == after:
                self._published.wait(wait_s)
            return None if self._table.number == after else self._table.model_dump_json().encode()

    def _build(self) -> RoutingTable:
        routes = {endpoint.id: _route(endpoint) for endpoint in self._registry.find(Endpoint)}
        grants = {
            key.hash: Grant(workspace=key.workspace, role=key.role, expires_at=key.expires_at)
            for key in self._registry.find(ApiKey)
        }
        return RoutingTable(number=self._table.number + 1, routes=routes, grants=grants)


def _route(endpoint: Endpoint) -> Route:
    serving = endpoint.revision if endpoint.state not in ("deleting", "stopped") else None
    targets = [Target(revision=serving, application=application_name(endpoint.id, serving))] if serving else []
    return Route(
        endpoint_id=endpoint.id,
        workspace=endpoint.workspace,
        name=endpoint.spec.name,
        state=endpoint.state,
        reason=endpoint.reason,
        created_at=endpoint.created_at,
        targets=tuple(targets),
    )
