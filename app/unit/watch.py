"""What a unit lets be seen of itself while it works: its engine's log, and figures every few seconds.

Nothing of it is waited for by anybody: a store or a control plane that is away costs figures and delays lines.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from app.core.reports import UnitReport
from app.store.object_store import ObjectStore
from app.unit.accelerators import Accelerators
from app.unit.control_plane import Unit
from app.unit.engine_client import EngineClient
from app.unit.log_shipper import LogShipper, ship_leftovers
from app.unit.process_use import ProcessUse

LOG_PERIOD_S = 2.0
REPORT_PERIOD_S = 10.0
TIMEOUT_S = 5.0
"""For the engine to answer, and for the control plane to take a report."""
LAST_WORDS_TIMEOUT_S = 3.0
"""A unit whose end is waited for does not wait longer for the store to take the rest of its log."""

Tell = Callable[[str], Awaitable[None]]

log = logging.getLogger("ray.serve")


class Watch:
    """Of one unit; begins when it is made, inside a running event loop."""

    def __init__(self, store: ObjectStore, log_file: Path, unit: Unit):
        self._store = store
        self._log_dir = log_file.parent
        self._shipper = LogShipper(store, log_file, unit.endpoint_id, unit.name)
        self._tasks = [asyncio.create_task(self._ship_again_and_again())]

    def engine_runs(self, engine: EngineClient, tell: Tell) -> None:
        """Report of it from now on, by `tell`; and see to the logs of units that were killed on this node."""
        self._shipper.say("the engine is ready")
        reporter = Reporter(engine, tell)
        self._tasks.append(asyncio.create_task(reporter.run()))
        self._tasks.append(asyncio.create_task(asyncio.to_thread(ship_leftovers, self._store, self._log_dir)))

    async def end(self, last_words: str) -> None:
        """Bring the rest of the log, unless that takes too long: then the next unit on this node does it."""
        for task in self._tasks:
            task.cancel()
        self._shipper.say(last_words)
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


class Reporter:
    """Tells the control plane how a unit is."""

    def __init__(self, engine: EngineClient, tell: Tell):
        self._engine = engine
        self._tell = tell
        self._started_at = time.time()
        self._use = ProcessUse((os.getpid(), engine.pid))
        self._accelerators = Accelerators(os.environ.get("CUDA_VISIBLE_DEVICES", ""))

    async def run(self) -> None:
        """Until cancelled. A report that does not get through is not repeated: the next one says as much."""
        while True:
            try:
                report = await self.report()
                async with asyncio.timeout(TIMEOUT_S):
                    await self._tell(report.model_dump_json())
            except Exception as error:
                log.debug("the control plane got no figures (%s)", type(error).__name__)
            await asyncio.sleep(REPORT_PERIOD_S)

    async def report(self) -> UnitReport:
        """How it is now. Raises TimeoutError while the engine does not answer."""
        stats = await self._engine.stats(TIMEOUT_S)
        cpu_pct, memory_bytes = await asyncio.to_thread(self._use.read)
        cards = await asyncio.to_thread(self._accelerators.read)
        busy = [card.busy_pct for card in cards if card.busy_pct is not None]
        used = [card.used_bytes for card in cards if card.used_bytes is not None]
        return UnitReport(
            started_at=self._started_at,
            engine=stats,
            cpu_pct=cpu_pct,
            memory_bytes=memory_bytes,
            accelerator_pct=sum(busy) / len(busy) if busy else None,
            accelerator_memory_bytes=sum(used) if used else None,
        )
