"""Placing endpoints again whose machine type was chosen before it was known what their model needs."""

import threading
from collections.abc import Callable, Iterable

from app.control_plane.services.endpoint_wishes import EndpointWishes
from app.core.errors import PlatformError, Superseded
from app.core.records import Endpoint
from app.store.database import Registry


class Placements:
    """Only of what the platform chose, and only while nothing serves. `changed()` wakes the reconciler."""

    def __init__(self, registry: Registry, wishes: EndpointWishes, lock: threading.RLock, changed: Callable[[], None]):
        self._registry = registry
        self._wishes = wishes
        self._lock = lock
        self._changed = changed

    def review(self, endpoints: Iterable[Endpoint]) -> dict[str, str]:
        """Give each of those that cannot run where they are a machine type on which they can.

        Returns why there is none, by endpoint ID.
        """
        problems: dict[str, str] = {}
        free = [one for one in endpoints if one.spec.machine_type is None and one.revision is None]
        misplaced = [endpoint for endpoint in free if self._wishes.misplaced(endpoint)]
        if misplaced:
            self._wishes.look()
        for endpoint in misplaced:
            try:
                self._place(endpoint)
            except Superseded:
                raise
            except PlatformError as error:
                problems[endpoint.id] = error.message
        return problems

    def _place(self, planned: Endpoint) -> None:
        with self._lock:
            endpoint = self._registry.get(Endpoint, planned.id)
            if endpoint is None or endpoint.generation != planned.generation:
                return  # wished anew meanwhile: that has placed it
            why = self._wishes.misplaced(endpoint)
            if not why:
                return
            machine = self._wishes.place(endpoint.workspace, endpoint.spec, endpoint.managed_by, endpoint)
            told = f"moved from {endpoint.machine_type} to {machine.machine_type}: {why}"
            self._wishes.respecify(endpoint, endpoint.spec, machine, "placed", told)
        self._changed()
