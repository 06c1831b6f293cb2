"""Tombstones: what is left of deleted endpoints, so that they can be restored, and when that ends."""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from app.control_plane.services.endpoints import Endpoints
from app.control_plane.services.events import event
from app.core.errors import Conflict
from app.core.etags import etag_of, require_match
from app.core.records import ApiKey, Endpoint
from app.store.database import Registry

BATCH = 50
"""Tombstones that go while others wait for the lock."""


class Tombstones:
    """Those of all workspaces. `now` is the only clock."""

    def __init__(
        self,
        registry: Registry,
        endpoints: Endpoints,
        lock: threading.RLock,
        kept: timedelta,
        now: Callable[[], datetime],
    ):
        self._registry = registry
        self._endpoints = endpoints
        self._lock = lock
        self._kept = kept
        self._now = now

    def purge_at(self, endpoint: Endpoint) -> datetime | None:
        """Until when a deleted endpoint can be restored; None for one that is not deleted."""
        return endpoint.deleted_at + self._kept if endpoint.deleted_at else None

    def purge(self, workspace: str, endpoint_id: str, if_match: str | None = None) -> Endpoint:
        """Forget a deleted endpoint before its time. Raises NotFound, and Conflict for one that is not deleted."""
        with self._lock:
            endpoint = self._endpoints.get(workspace, endpoint_id, deleted=True)
            require_match(if_match, etag_of(endpoint))
            if endpoint.deleted_at is None:
                raise Conflict(f"This endpoint is {endpoint.state}; only one that is deleted can be purged.")
            self._forget([endpoint])
        return endpoint

    def purge_old(self) -> None:
        """Forget those whose time is over."""
        old = [endpoint.id for endpoint in self._registry.find(Endpoint, state="deleting") if self._is_old(endpoint)]
        for start in range(0, len(old), BATCH):
            self._registry.check_turn()  # also lets those have the lock who wait for it
            with self._lock:
                found = self._registry.find(Endpoint, id=old[start : start + BATCH])
                self._forget([endpoint for endpoint in found if self._is_old(endpoint)])  # unless it was restored

    def _is_old(self, endpoint: Endpoint) -> bool:
        purge_at = self.purge_at(endpoint)
        return purge_at is not None and purge_at <= self._now()

    def _forget(self, endpoints: Sequence[Endpoint]) -> None:
        """They leave the keys' lists, and their figures go with them."""
        gone = {endpoint.id for endpoint in endpoints}
        keys = [
            key.model_copy(update={"endpoints": tuple(one for one in key.endpoints if one not in gone)})
            for key in self._registry.find(ApiKey, workspace={endpoint.workspace for endpoint in endpoints})
            if key.endpoints and not gone.isdisjoint(key.endpoints)
        ]
        notes = [
            event(endpoint.workspace, endpoint.id, "purged", "it cannot be restored any more") for endpoint in endpoints
        ]
        self._registry.change(put=[*keys, *notes], delete=endpoints)
