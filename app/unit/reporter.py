"""Tells the control plane how a unit is, every few seconds. If it does not listen, nothing waits."""

import asyncio
import logging
import os
import time
from typing import Protocol

from app.core.reports import UnitReport
from app.unit.accelerators import Accelerators
from app.unit.engine_client import EngineClient
from app.unit.process_use import ProcessUse

PERIOD_S = 10.0
ENGINE_TIMEOUT_S = 5.0

log = logging.getLogger("ray.serve")


class ReportSink(Protocol):
    """Who takes reports: the control plane, or a test."""

    async def report(self, report: str) -> None:
        """Take a UnitReport as JSON. May raise anything, and does so within seconds or returns."""
        ...


class Reporter:
    """Sends reports of one unit, whose engine runs."""

    def __init__(self, engine: EngineClient, sink: ReportSink):
        self._engine = engine
        self._sink = sink
        self._started_at = time.time()
        self._ready_at_s = time.monotonic()
        self._use = ProcessUse((os.getpid(), engine.pid))
        self._accelerators = Accelerators(os.environ.get("CUDA_VISIBLE_DEVICES", ""))

    async def run(self) -> None:
        """Until cancelled. A report that does not get through is not repeated: the next one says as much."""
        while True:
            try:
                report = await self.report()
                await self._sink.report(report.model_dump_json())
            except Exception as error:
                log.debug("the control plane got no figures (%s)", type(error).__name__)
            await asyncio.sleep(PERIOD_S)

    async def report(self) -> UnitReport:
        """How it is now. Raises TimeoutError while the engine does not answer."""
        stats = await self._engine.stats(ENGINE_TIMEOUT_S)
        cpu_pct, memory_bytes = await asyncio.to_thread(self._use.read)
        cards = await asyncio.to_thread(self._accelerators.read)
        busy = [card.busy_pct for card in cards if card.busy_pct is not None]
        used = [card.used_bytes for card in cards if card.used_bytes is not None]
        return UnitReport(
            started_at=self._started_at,
            up_s=time.monotonic() - self._ready_at_s,
            engine=stats,
            cpu_pct=cpu_pct,
            memory_bytes=memory_bytes,
            accelerator_pct=sum(busy) / len(busy) if busy else None,
            accelerator_memory_bytes=sum(used) if used else None,
        )
