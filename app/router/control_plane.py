"""The control plane as routers reach it: by its Serve handle, each call with a deadline."""

import asyncio
from typing import Any

from ray import serve

POLL_DEADLINE_S = 30.0
REPORT_DEADLINE_S = 3.0
METRICS_DEADLINE_S = 1.0


class ControlPlaneHandle:
    """Its methods raise whatever Serve raises, and TimeoutError; while it is away nothing here waits for longer."""

    def __init__(self, router: str):
        self._router = router

    async def next_table(self, after: int, wait_s: float) -> bytes | None:
        """See TableSource."""
        table: bytes | None = await _call("next_table", after, wait_s, self._router, deadline_s=POLL_DEADLINE_S)
        return table

    async def report(self, report: str) -> None:
        """See ReportSink."""
        await _call("router_report", self._router, report, deadline_s=REPORT_DEADLINE_S)

    async def metrics_text(self) -> str:
        """See MetricsSource."""
        text: str = await _call("metrics_text", deadline_s=METRICS_DEADLINE_S)
        return text


async def _call(method: str, *args: Any, deadline_s: float) -> Any:
    handle = serve.get_deployment_handle("control_plane", "control_plane", _check_exists=False)
    response = getattr(handle, method).remote(*args)
    try:
        async with asyncio.timeout(deadline_s):
            return await response
    except (TimeoutError, asyncio.CancelledError):
        response.cancel()
        raise
