"""Routers and units that tell the control plane how they are."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.control_plane.services.figures import Figures
from app.core.reports import EndpointReport, EngineStats, RouterReport, UnitReport


class FakeRouter:
    """Counts what it is told to have served."""

    def __init__(self, name: str, started_at: datetime):
        self.name = name
        self.started_at = started_at.timestamp()
        self.endpoints: dict[str, EndpointReport] = {}
        self.keys: dict[str, float] = {}
        self.prometheus = ""

    def serve(self, endpoint_id: str, at: datetime, *, ttft_ms: float = 50.0, **requests: int) -> None:
        """`requests` by their status class, with an `s` before it: s2xx=3."""
        before = self.endpoints.get(endpoint_id)
        counted: dict[Any, int] = dict(before.requests) if before else {}
        for name, count in requests.items():
            counted[name.removeprefix("s")] = counted.get(name.removeprefix("s"), 0) + count
        answered = requests.get("s2xx", 0)
        self.endpoints[endpoint_id] = EndpointReport(
            requests=counted,
            ttft_ms_sum=(before.ttft_ms_sum if before else 0.0) + ttft_ms * answered,
            ttft_count=(before.ttft_count if before else 0) + answered,
            duration_ms_sum=0.0,
            duration_count=0,
            running=0,
            last_request_at=at.timestamp(),
        )

    def report(self, figures: Figures) -> None:
        report = RouterReport(
            started_at=self.started_at, endpoints=self.endpoints, keys=self.keys, prometheus=self.prometheus
        )
        figures.router_report(self.name, report.model_dump_json())


def report_unit(
    figures: Figures,
    endpoint_id: str,
    unit: str = "unit1",
    *,
    started_at: float = 1000.0,
    engine: Mapping[str, Any] | None = None,
    **fields: Any,
) -> None:
    report = UnitReport(started_at=started_at, engine=EngineStats(**(engine or {})), **fields)
    figures.unit_report(endpoint_id, "rev-1", unit, report.model_dump_json())
