"""Tells the control plane how a unit is, every few seconds and at its end. If it does not listen, nothing waits."""

import asyncio
import contextlib
import logging
import os
import time
from typing import Protocol

from app.core.reports import EngineStats, UnitReport
from app.unit.accelerators import Accelerators
from app.unit.engine_client import EngineClient
from app.unit.process_use import ProcessUse

PERIOD_S = 10.0
ENGINE_TIMEOUT_S = 5.0
LAST_ENGINE_TIMEOUT_S = 1.0
"""At the end: then its figures are those that it told before."""

log = logging.getLogger("ray.serve")


class ReportSink(Protocol):
    """Who takes reports: the control plane, or a test."""

    async def report(self, report: str) -> None:
        """Take a UnitReport as JSON. May raise anything, and does so within seconds or returns."""
        ...


class Reporter:
    """Sends reports of one unit, whose engine runs; begins when it is made, inside a running event loop."""

    def __init__(self, engine: EngineClient, sink: ReportSink):
        self._engine = engine
        self._sink = sink
        self._started_at = time.time()
        self._ready_at_s = time.monotonic()
        self._use = ProcessUse((os.getpid(), engine.pid))
        self._accelerators = Accelerators(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        self._stats = EngineStats()
        self._ends = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def end(self, timeout_s: float) -> None:
        """Report a last time, so that the time since the report before is counted, unless that takes too long.

        One that is on its way is waited for: after the last it would look as if the unit had begun anew.
        """
        self._ends.set()
        await asyncio.wait([self._task], timeout=timeout_s)
        self._task.cancel()

    async def _run(self) -> None:
        """A report that does not get through is not repeated: the next one says as much."""
        last = False
        while not last:
            last = self._ends.is_set()
            try:
                report = await self._report(last)
                await self._sink.report(report.model_dump_json())
            except Exception as error:
                log.debug("the control plane got no figures (%s)", type(error).__name__)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S):
                    await self._ends.wait()

    async def _report(self, last: bool) -> UnitReport:
        """How it is now. Raises TimeoutError while the engine does not answer, but for the last time."""
        try:
            self._stats = await self._engine.stats(LAST_ENGINE_TIMEOUT_S if last else ENGINE_TIMEOUT_S)
        except TimeoutError:
            if not last:
                raise
        cpu_pct, memory_bytes = await asyncio.to_thread(self._use.read)
        cards = await asyncio.to_thread(self._accelerators.read)
        busy = [card.busy_pct for card in cards if card.busy_pct is not None]
        used = [card.used_bytes for card in cards if card.used_bytes is not None]
        return UnitReport(
            started_at=self._started_at,
            up_s=time.monotonic() - self._ready_at_s,
            engine=self._stats,
            cpu_pct=cpu_pct,
            memory_bytes=memory_bytes,
            accelerator_pct=sum(busy) / len(busy) if busy else None,
            accelerator_memory_bytes=sum(used) if used else None,
        )
