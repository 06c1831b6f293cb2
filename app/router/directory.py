"""What a router knows of the platform: the routing table, kept up to date by long-poll, and handles to units."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from pydantic import ValidationError

from app.core.routing import RoutingTable
from app.router.control_plane import POLL_DEADLINE_S
from app.router.handles import unit_handle
from app.store.layout import SNAPSHOT
from app.store.object_store import ObjectMissing, ObjectStore

POLL_WAIT_S = 20.0
RETRY_S = 0.2
HANDLE_GRACE_S = 600.0
"""How long a handle that takes no new requests still reports what is under way: as long as a unit may take to drain."""

log = logging.getLogger("ray.serve")


TableListener = Callable[[RoutingTable, RoutingTable], None]
"""Hears of the table before and the one after it."""


class TableSource(Protocol):
    """Where tables come from: the control plane's handle, or a test."""

    async def next_table(self, after: int, wait_s: float) -> bytes | None:
        """The current table as JSON once its number is not `after`; None when `wait_s` have passed."""
        ...


class Directory:
    """The current routing table. Readers take `table` once and keep it for the whole request."""

    def __init__(self, store: ObjectStore, source: TableSource, open_handle: Callable[[str], Any] = unit_handle):
        """`open_handle`: the handle of an application's units."""
        self._store = store
        self._source = source
        self._open_handle = open_handle
        self._heard_at: float | None = None
        self._handles: dict[str, Any] = {}
        self._closing: set[asyncio.Task[None]] = set()
        """The event loop itself holds tasks only weakly."""
        self._listeners: list[TableListener] = []
        self.table = RoutingTable()

    @property
    def loaded(self) -> bool:
        """Whether there is a table at all, from wherever."""
        return self.table.number > 0

    @property
    def control_plane_reachable(self) -> bool:
        """Whether the control plane has answered lately."""
        return self._heard_at is not None and time.monotonic() - self._heard_at < POLL_DEADLINE_S + RETRY_S

    async def load_snapshot(self) -> None:
        """Begin with the table that was saved last, so that a router can start without the control plane."""
        try:
            self._take(await asyncio.to_thread(self._store.read, SNAPSHOT))
        except ObjectMissing:
            log.info("no saved routing table yet")
        except (ValidationError, OSError):
            log.exception("the saved routing table cannot be read; waiting for the control plane")

    async def follow(self) -> None:
        """Take over each new table; never returns and never gives up."""
        while True:
            try:
                first = self._heard_at is None  # not waited for: until it is there, the control plane looks away
                data = await self._source.next_table(self.table.number, 0.0 if first else POLL_WAIT_S)
                self._heard_at = time.monotonic()
                if data is not None and not self._take(data):
                    log.warning("the control plane has an older routing table; another one has taken over")
                    await asyncio.sleep(RETRY_S)
            except Exception as error:
                log.warning("the control plane does not answer (%s); serving on", type(error).__name__)
                await asyncio.sleep(RETRY_S)

    def on_change(self, listener: TableListener) -> None:
        """Tell `listener` of each new table."""
        self._listeners.append(listener)

    def _take(self, data: bytes) -> bool:
        """Take over a table; False for one that is older than what is known."""
        table = RoutingTable.model_validate_json(data)
        if table.number < self.table.number:
            return False
        before, self.table = self.table, table
        live = {target.application for route in self.table.routes.values() for target in route.targets}
        for application in self._handles.keys() - live:
            self._close(application, HANDLE_GRACE_S)
        for listener in self._listeners:
            listener(before, self.table)
        return True

    def handle(self, application: str) -> Any:
        """The Serve handle of a revision's units, made once."""
        if application not in self._handles:
            self._handles[application] = self._open_handle(application)
        return self._handles[application]

    def release(self, application: str) -> None:
        """Give up the handle of units that sleep, which goes on telling the controller that nobody calls.

        Only while nothing waits in it. The next request makes another.
        """
        if application in self._handles:
            self._close(application, 0.0)

    def _close(self, application: str, grace_s: float) -> None:
        closing = asyncio.create_task(_close(self._handles.pop(application), grace_s))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


async def _close(handle: Any, grace_s: float) -> None:
    """End a handle's reports to the controller, which would go on for ever. Its calls do not need them and go on."""
    await asyncio.sleep(grace_s)
    await handle.shutdown_async()
