"""Tombstones: what is left of deleted endpoints, so that they can be restored, and when that ends."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from app.control_plane.services.endpoints import Endpoints
from app.control_plane.services.events import event
from app.core.errors import Conflict
from app.core.records import ApiKey, Endpoint
from app.store.database import Registry


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

    def purge(self, workspace: str, endpoint_id: str) -> Endpoint:
        """Forget a deleted endpoint before its time. Raises NotFound, and Conflict for one that is not deleted."""
        with self._lock:
            endpoint = self._endpoints.get(workspace, endpoint_id, deleted=True)
            if endpoint.deleted_at is None:
                raise Conflict(f"This endpoint is {endpoint.state}; only one that is deleted can be purged.")
            self._forget(endpoint)
        return endpoint

    def purge_old(self) -> None:
        """Forget those whose time is over."""
        with self._lock:
            for endpoint in self._registry.find(Endpoint, state="deleting"):
                purge_at = self.purge_at(endpoint)
                if purge_at is not None and purge_at <= self._now():
                    self._forget(endpoint)

    def _forget(self, endpoint: Endpoint) -> None:
        """Safe to repeat: first it leaves the keys' lists, then the record goes and with it its figures."""
        keys = [
            key.model_copy(update={"endpoints": tuple(one for one in key.endpoints if one != endpoint.id)})
            for key in self._registry.find(ApiKey, workspace=endpoint.workspace)
            if key.endpoints and endpoint.id in key.endpoints
        ]
        self._registry.put(*keys, event(endpoint.workspace, endpoint.id, "purged", "it cannot be restored any more"))
        self._registry.delete(endpoint)
