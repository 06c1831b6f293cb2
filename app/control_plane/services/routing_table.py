"""The routing table: built from records, numbered, saved, and waited for by routers."""

import threading
import time
from collections.abc import Mapping
from types import MappingProxyType

from app.core.lifecycle import application_name
from app.core.records import ApiKey, Endpoint
from app.core.routing import Grant, Route, RoutingTable, Target
from app.store.database import Registry
from app.store.layout import SNAPSHOT
from app.store.object_store import ObjectMissing, ObjectStore

ROUTER_LOST_AFTER_S = 30.0
"""A router that has not asked for so long is gone; living ones ask every 20 s at least."""


class RoutingTables:
    """Publishes a new table whenever the records make one. Its number only ever grows, also over restarts."""

    def __init__(self, registry: Registry, store: ObjectStore):
        self._registry = registry
        self._store = store
        self._changed = threading.Condition()
        self._table = RoutingTable()
        self._taken: dict[str, tuple[int, float]] = {}
        """Router -> the number of the table it has, and when it said so."""

    def load(self) -> None:
        """Go on from the saved table."""
        try:
            self._table = RoutingTable.model_validate_json(self._store.read(SNAPSHOT))
        except (ObjectMissing, ValueError):
            self._table = RoutingTable(number=int(time.time()))

    def publish(self, coming: Mapping[str, Endpoint] = MappingProxyType({})) -> None:
        """Build the table again; if it differs, save it and wake the routers.

        `coming`: endpoints as their records will say once the routers know.
        """
        with self._changed:
            table = self._build(coming)
            if table.model_copy(update={"number": self._table.number}) == self._table:
                return
            self._store.write(SNAPSHOT, table.model_dump_json().encode())
            self._table = table
            self._changed.notify_all()

    def wait(self, after: int, wait_s: float, router: str = "") -> bytes | None:
        """The table as JSON once its number is not `after`, or None; `router` has table `after`. Blocks."""
        with self._changed:
            self._taken[router] = (after, time.monotonic())
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._table.number != after, wait_s)
            return None if self._table.number == after else self._table.model_dump_json().encode()

    def wait_until_taken(self, timeout_s: float) -> None:
        """Until every router has the current table, and at least one has; at most `timeout_s`. Blocks."""
        with self._changed:
            self._changed.wait_for(self._is_taken, timeout_s)

    def _is_taken(self) -> bool:
        recent = time.monotonic() - ROUTER_LOST_AFTER_S
        numbers = {number for number, heard_at in self._taken.values() if heard_at > recent}
        return numbers == {self._table.number}

    def _build(self, coming: Mapping[str, Endpoint]) -> RoutingTable:
        endpoints = self._registry.find(Endpoint)
        known = [coming.get(endpoint.id, endpoint) for endpoint in endpoints]
        # One that is being deleted has left: its name may be another's already.
        routes = {endpoint.id: _route(endpoint) for endpoint in known if endpoint.state != "deleting"}
        grants = {
            key.hash: Grant(workspace=key.workspace, role=key.role, expires_at=key.expires_at)
            for key in self._registry.find(ApiKey)
        }
        return RoutingTable(number=self._table.number + 1, routes=routes, grants=grants)


def _route(endpoint: Endpoint) -> Route:
    serving = endpoint.revision if endpoint.state != "stopped" else None
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
