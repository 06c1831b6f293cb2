"""What a unit lets be seen of itself from its first moment to its last: the engine's log, and then reports.

Nothing of it is waited for by anybody: a store or a control plane that is away costs figures and delays lines.
"""

import asyncio
import logging
from pathlib import Path

from app.store.object_store import ObjectStore
from app.unit.control_plane import Unit
from app.unit.engine_client import EngineClient
from app.unit.log_shipper import LogShipper, ship_leftovers
from app.unit.reporter import Reporter, ReportSink

LOG_PERIOD_S = 2.0
LAST_WORDS_TIMEOUT_S = 3.0
"""A unit whose end is waited for does not wait longer for the store to take the rest of its log, or for the control
plane to hear its last figures."""

log = logging.getLogger("ray.serve")


class Watch:
    """Of one unit; begins when it is made, inside a running event loop."""

    def __init__(self, store: ObjectStore, log_file: Path, unit: Unit):
        self._store = store
        self._log_dir = log_file.parent
        self._shipper = LogShipper(store, log_file, unit.endpoint_id, unit.name)
        self._reporter: Reporter | None = None
        self._tasks = [asyncio.create_task(self._ship_again_and_again())]

    def engine_runs(self, engine: EngineClient, sink: ReportSink) -> None:
        """Report of it from now on; and see to the logs of units that were killed on this node."""
        self._shipper.say("the engine is ready")
        self._reporter = Reporter(engine, sink)
        self._tasks.append(asyncio.create_task(asyncio.to_thread(ship_leftovers, self._store, self._log_dir)))

    async def engine_ends(self) -> None:
        """Report of it a last time; to be called while it can still be asked, else `end` does what can be done."""
        if self._reporter:
            await self._reporter.end(LAST_WORDS_TIMEOUT_S)

    async def end(self, last_words: str) -> None:
        """Bring the rest of the log, unless that takes too long: then the next unit on this node does it."""
        for task in self._tasks:
            task.cancel()
        self._shipper.say(last_words)
        await asyncio.gather(self.engine_ends(), self._ship_the_rest())

    async def _ship_the_rest(self) -> None:
        try:
            async with asyncio.timeout(LAST_WORDS_TIMEOUT_S):
                await asyncio.to_thread(self._shipper.ship, whole=True)
                await asyncio.to_thread(self._shipper.close)
        except (OSError, TimeoutError) as error:
            log.warning("the rest of the engine's log could not be brought to the store: %s", error or "it took long")

    async def _ship_again_and_again(self) -> None:
        told = False
        while True:
            try:
                await asyncio.to_thread(self._shipper.ship)
                told = False
            except OSError as error:
                if not told:
                    log.warning("the engine's log cannot be brought to the store for now: %s", error)
                told = True
            await asyncio.sleep(LOG_PERIOD_S)
