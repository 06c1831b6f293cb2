"""The routing table: built from records, numbered, saved, and waited for by routers."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from app.control_plane.services.families import Families
from app.control_plane.services.unit_starts import UnitStarts
from app.core.chat_terms import ChatTerms
from app.core.keys import bounded
from app.core.lifecycle import application_name
from app.core.records import ApiKey, Endpoint, Member
from app.core.routing import Grant, Route, RoutingTable, Target
from app.core.waiting import without_counts
from app.store.database import Registry
from app.store.layout import SNAPSHOT
from app.store.object_store import ObjectMissing, ObjectStore

ROUTER_LOST_AFTER_S = 30.0
"""A router that has not asked for so long is gone; living ones ask every 20 s at least."""
WAITING_PER_RUNNING = 4
"""How many requests may wait for each that is worked on."""
NUMBERS_PER_TURN_BITS = 32
"""Tables that one control plane can publish, as a power of two."""

log = logging.getLogger("ray.serve")


class RoutingTables:
    """Publishes a new table whenever the records make one. Its number only ever grows, also over restarts."""

    def __init__(
        self,
        registry: Registry,
        store: ObjectStore,
        clock: Callable[[], float] = time.monotonic,
        starts: UnitStarts | None = None,
        families: Families | None = None,
        unsaved: Callable[[], None] = lambda: None,
    ):
        """`starts`: what is known of how units start; None: nothing. `families`: who can call tools; None: nobody.

        `unsaved()` is called when the store did not take a table: `save` is to be tried again by and by.
        """
        self._registry = registry
        self._starts = starts
        self._families = families
        self._store = store
        self._clock = clock
        self._unsaved = unsaved
        self._saving = threading.Lock()
        """Taken before the table is read: whoever writes last has the newest."""
        self._store_away = False
        self._changed = threading.Condition()
        self._table = RoutingTable()
        self._taken: dict[str, tuple[int, float]] = {}
        """Router -> the number of the table it has, and when it said so."""
        self._expected = (0, clock())
        """Routers that were there before a restart, and until when they may take to be heard again."""

    def load(self, turn: int) -> None:
        """Go on from the saved table, with numbers that no earlier control plane had: `turn` is the writer's.

        Where there is none to be had, the records make one at once: routers must not take it that there is nothing.
        """
        saved = self._read_saved()
        self._expected = (saved.routers, self._clock() + ROUTER_LOST_AFTER_S)
        # Else one that does not know yet that it was superseded could give the same number to another table.
        self._table = saved.model_copy(update={"number": max(saved.number, turn << NUMBERS_PER_TURN_BITS)})
        if not saved.number:
            self.publish()

    def publish(self, coming: Mapping[str, Endpoint] = MappingProxyType({})) -> None:
        """Build the table again; if it differs, wake the routers and save it.

        `coming`: endpoints as their records will say once the routers know. The routers hear of it also while the
        object store is away.
        """
        with self._changed:
            table = self._build(coming)
            if table.model_copy(update={"number": self._table.number}) == self._table:
                return
            self._registry.check_turn()
            self._table = table
            self._changed.notify_all()
        if self._store_away:
            return  # callers do not wait for it again: whoever was told by `unsaved` does
        with self._saving:
            if not self._store_away and not self._save():
                self._unsaved()

    def save(self) -> bool:
        """Save the table once more: the store may have been away, or one that was superseded while it wrote may have
        left its own. Returns whether the store has the newest."""
        with self._saving:
            return self._save()

    def wait(self, after: int, wait_s: float, router: str = "") -> bytes | None:
        """The table as JSON once its number is not `after`, or None; `router` has table `after`. Blocks.

        Raises Superseded where another control plane has given out that one.
        """
        with self._changed:
            self._taken[router] = (after, self._clock())
            self._changed.notify_all()
            if after > self._table.number:
                self._overtake(after)
            self._changed.wait_for(lambda: self._table.number != after, wait_s)
            return None if self._table.number == after else self._table.model_dump_json().encode()

    def wait_until_taken(self, timeout_s: float) -> None:
        """Until every router has the current table, and at least one has; at most `timeout_s`. Blocks."""
        with self._changed:
            self._changed.wait_for(self._is_taken, timeout_s)

    def _overtake(self, number: int) -> None:
        """Routers take no table with a lower number than theirs: the registry may have been restored from a backup."""
        self._registry.check_turn()
        self._table = self._table.model_copy(update={"number": number + 1})

    def _read_saved(self) -> RoutingTable:
        try:
            return RoutingTable.model_validate_json(self._store.read(SNAPSHOT))
        except ObjectMissing:
            log.info("no saved routing table yet")
        except (OSError, ValueError):
            log.warning("the saved routing table cannot be read; it is made from the records", exc_info=True)
        return RoutingTable()

    def _save(self) -> bool:
        table = self._table
        try:
            self._store.write(SNAPSHOT, table.model_dump_json().encode())
        except OSError as error:
            if not self._store_away:
                log.warning("the routing table is not saved, and is tried again (%s)", error)
            self._store_away = True
        else:
            self._store_away = False
        return not self._store_away and table is self._table

    def _is_taken(self) -> bool:
        return {number for number, _ in self._living().values()} == {self._table.number}

    def _living(self) -> dict[str, tuple[int, float]]:
        recent = self._clock() - ROUTER_LOST_AFTER_S
        self._taken = {router: (number, at) for router, (number, at) in self._taken.items() if at > recent}
        return self._taken

    def _routers(self) -> int:
        """How many routers share the limits: after a restart as many as before, until they have had time to call."""
        expected, until = self._expected
        living = sum(bool(router) for router in self._living())
        return max(1, living, expected if self._clock() < until else 0)

    def _build(self, coming: Mapping[str, Endpoint]) -> RoutingTable:
        endpoints = self._registry.find(Endpoint, deleted_at=None)
        known = [coming.get(endpoint.id, endpoint) for endpoint in endpoints]
        # One that is being deleted has left: its name may be another's already.
        known = [endpoint for endpoint in known if endpoint.state != "deleting"]
        tools = self._families.that_call_tools(known) if self._families else set()
        routes = {endpoint.id: _route(endpoint, self._starts, endpoint.id in tools) for endpoint in known}
        keys = bounded(self._registry.find(ApiKey), self._registry.find(Member))
        grants = {key.hash: _grant(key) for key in keys}
        return RoutingTable(number=self._table.number + 1, routers=self._routers(), routes=routes, grants=grants)


def _grant(key: ApiKey) -> Grant:
    return Grant(
        workspace=key.workspace,
        role=key.role,
        key_id=key.id,
        endpoints=key.endpoints,
        limits=key.limits,
        expires_at=key.expires_at,
    )


def _queue_limit(endpoint: Endpoint) -> int:
    """Requests that may wait at all routers together."""
    units = max(1, endpoint.running_units, endpoint.target_units)
    return endpoint.spec.limits.max_queued or WAITING_PER_RUNNING * endpoint.spec.engine.max_num_seqs * units


def _route(endpoint: Endpoint, starts: UnitStarts | None, tools: bool) -> Route:
    serving = endpoint.revision if endpoint.state != "stopped" else None
    targets = [Target(revision=serving, application=application_name(endpoint.id, serving))] if serving else []
    qps_per_unit = endpoint.spec.limits.qps_per_unit
    return Route(
        endpoint_id=endpoint.id,
        workspace=endpoint.workspace,
        name=endpoint.spec.name,
        model=endpoint.spec.model,
        precision=endpoint.spec.precision,
        state=endpoint.state,
        reason=without_counts(endpoint.reason),  # else routers would get a new table every second
        created_at=endpoint.created_at,
        targets=tuple(targets),
        allowed_networks=endpoint.spec.allowed_networks,
        qps=qps_per_unit and qps_per_unit * max(1, endpoint.running_units),  # a first request must be able to wake it
        running_units=endpoint.running_units,
        phase=starts.phase(endpoint.id) if starts and not endpoint.running_units else "",
        wake=starts.estimate(endpoint) if starts else None,
        concurrency=endpoint.spec.engine.max_num_seqs * endpoint.running_units,
        max_waiting=_queue_limit(endpoint),
        chat=ChatTerms(
            defaults=endpoint.spec.request_defaults.values(),
            structured_output=endpoint.spec.features.structured_output,
            tools=tools,
        ),
    )
