"""Tells the control plane what this router has counted. If it does not listen, nothing is lost and nothing waits."""

import asyncio
import logging
import math
from typing import Protocol

from app.router.directory import Directory
from app.router.figures import Figures

PERIOD_S = 5.0
QUIET_PERIOD_S = 30.0
"""While nothing is counted: a sign of life, and what a control plane that has started anew needs to hear."""

log = logging.getLogger("ray.serve")


class ReportSink(Protocol):
    """Who takes reports: the control plane's handle, or a test."""

    async def report(self, report: str) -> None:
        """Take a RouterReport as JSON. May raise anything."""
        ...


class Reporter:
    """Sends reports, each with all that was counted since the router started."""

    def __init__(self, figures: Figures, directory: Directory, sink: ReportSink):
        self._figures = figures
        self._directory = directory
        self._sink = sink
        self._told_changes = -1
        self._told_at = -math.inf
        self._failing = False

    async def run(self) -> None:
        """Report again and again; never returns and never gives up."""
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.step()

    async def step(self) -> None:
        """Report if there is something to say."""
        changes, now = self._figures.changes, self._figures.clock()
        if changes == self._told_changes and now - self._told_at < QUIET_PERIOD_S:
            return
        table = self._directory.table
        try:
            report = await asyncio.to_thread(self._figures.report, table.number)
            await self._sink.report(report.model_dump_json())
        except Exception as error:
            if not self._failing:
                log.warning("the control plane takes no report (%s); the next one says it all", type(error).__name__)
            self._failing = True
            return
        self._failing = False
        self._told_changes, self._told_at = changes, now
        self._figures.reported(report, table.routes)
