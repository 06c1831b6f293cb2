"""Carries out the stop rules of app/core/stop_rules.py, and lets old tombstones go; a loop calls it."""

import logging
import threading
from collections.abc import Callable
from datetime import datetime

from app.control_plane.services.endpoint_wishes import EndpointWishes
from app.control_plane.services.events import event
from app.control_plane.services.tombstones import Tombstones
from app.core.errors import Superseded
from app.core.records import Endpoint
from app.core.stop_rules import Delete, IdleRule, Stop, Warn, due
from app.store.database import Registry

log = logging.getLogger("ray.serve")


class StopRules:
    """Looks at every endpoint; `now` is the only clock."""

    def __init__(
        self,
        registry: Registry,
        wishes: EndpointWishes,
        tombstones: Tombstones,
        lock: threading.RLock,
        idle: IdleRule,
        last_request: Callable[[str], datetime | None],
        now: Callable[[], datetime],
    ):
        """`last_request`: what routers have told of an endpoint that is not written down yet."""
        self._registry = registry
        self._wishes = wishes
        self._tombstones = tombstones
        self._lock = lock
        self._idle = idle
        self._last_request = last_request
        self._now = now
        self._heard_since = now()

    def begin(self) -> None:
        """From now on routers can tell of requests."""
        self._heard_since = self._now()

    def step(self) -> bool:
        """One round; always settled."""
        for endpoint in self._registry.find(Endpoint, deleted_at=None):
            if self._due(self._as_heard(endpoint)) is None:
                continue
            try:
                self._carry_out(endpoint.id)
            except Superseded:
                raise
            except Exception:  # one endpoint never holds up another
                log.exception("the stop rules of %s could not be carried out", endpoint.id)
        self._tombstones.purge_old()
        return True

    def _carry_out(self, endpoint_id: str) -> None:
        with self._lock:
            endpoint = self._registry.get(Endpoint, endpoint_id)
            if endpoint is None:
                return
            endpoint = self._as_heard(endpoint)
            match self._due(endpoint):  # somebody may have changed or called it just now
                case Stop(reason):
                    self._wishes.rest(endpoint, "stopped", reason)
                case Delete(reason):
                    self._wishes.rest(endpoint, "deleting", reason)
                case Warn(reason):
                    warned = endpoint.model_copy(update={"idle_warned_at": self._now()})
                    note = event(endpoint.workspace, endpoint.id, "idle_warning", reason)
                    self._registry.put(warned, note)

    def _as_heard(self, endpoint: Endpoint) -> Endpoint:
        heard = self._last_request(endpoint.id)
        if heard is None or (endpoint.last_request_at and endpoint.last_request_at >= heard):
            return endpoint
        return endpoint.model_copy(update={"last_request_at": heard})

    def _due(self, endpoint: Endpoint) -> Stop | Warn | Delete | None:
        return due(endpoint, self._now(), self._idle, self._heard_since)
