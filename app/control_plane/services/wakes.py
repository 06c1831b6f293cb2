"""Waking an endpoint that sleeps, without a request."""

from collections.abc import Callable
from typing import Protocol

from app.control_plane.services.endpoints import Endpoints
from app.core.errors import Conflict
from app.core.records import Endpoint


class WakePort(Protocol):
    """What this needs of a cluster."""

    def wake(self, endpoint_id: str, revision: str) -> None:
        """Have a call wait for a unit of this revision, which Serve starts one for; returns at once."""
        ...


class Wakes:
    """Wishes for a unit. They count as requests: from the last of them on it stays for as long as from any."""

    def __init__(self, endpoints: Endpoints, cluster: WakePort, changed: Callable[[], None]):
        self._endpoints = endpoints
        self._cluster = cluster
        self._changed = changed

    def wake(self, workspace: str, endpoint_id: str) -> Endpoint:
        """Wake it; one that is awake stays so. One that never sleeps, or cannot be called yet, stays as it is.

        Raises NotFound, Conflict.
        """
        endpoint = self._endpoints.get(workspace, endpoint_id)
        if endpoint.state in ("stopped", "deleting"):
            raise Conflict(f"This endpoint is {endpoint.state}; only one that sleeps can be woken.")
        if endpoint.revision and endpoint.spec.scale.min_units == 0:  # whatever the record says: it may sleep by now
            self._cluster.wake(endpoint.id, endpoint.revision)
            self._changed()
        return endpoint
