"""The control plane as routers reach it."""

from app.control_plane_handle import call

POLL_DEADLINE_S = 30.0
REPORT_DEADLINE_S = 3.0
METRICS_DEADLINE_S = 1.0
USAGE_DEADLINE_S = 10.0


class ControlPlaneForRouter:
    """Its methods raise whatever Serve raises, and TimeoutError; while it is away nothing here waits for longer."""

    def __init__(self, router: str):
        self._router = router

    async def next_table(self, after: int, wait_s: float) -> bytes | None:
        """See TableSource."""
        table: bytes | None = await call("next_table", after, wait_s, self._router, deadline_s=POLL_DEADLINE_S)
        return table

    async def report(self, report: str) -> None:
        """See ReportSink."""
        await call("router_report", self._router, report, deadline_s=REPORT_DEADLINE_S)

    async def metrics_text(self) -> str:
        """See MetricsSource."""
        text: str = await call("metrics_text", deadline_s=METRICS_DEADLINE_S)
        return text

    async def usage(self, batch: str) -> int:
        """See UsageSink."""
        taken_bytes: int = await call("usage", batch, deadline_s=USAGE_DEADLINE_S)
        return taken_bytes
