"""GET /metrics: Prometheus over this router, and over all others and all units as the control plane knows them."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from app import metrics
from app.core.errors import Forbidden
from app.core.networks import contains
from app.core.records import DEFAULT_WORKSPACE
from app.router.admission import Admission
from app.router.clients import client_of
from app.router.directory import Directory
from app.router.figures import Figures

log = logging.getLogger("ray.serve")


class MetricsSource(Protocol):
    """Who knows the others' figures: the control plane's handle, or a test."""

    async def metrics_text(self) -> str:
        """Their exposition. May raise anything, and does so within a second or answers."""
        ...


class MetricsPage:
    """Open for some networks; from elsewhere with an admin's or developer's key of the platform's own workspace."""

    def __init__(
        self,
        directory: Directory,
        figures: Figures,
        admission: Admission,
        others: MetricsSource,
        open_networks: Sequence[str],
        trusted_proxies: Sequence[str],
    ):
        self._directory = directory
        self._figures = figures
        self._admission = admission
        self._others = others
        self._open_networks = open_networks
        self._trusted_proxies = trusted_proxies

    async def __call__(self, request: Request) -> Response:
        table = self._directory.table
        if not contains(self._open_networks, client_of(request.scope, self._trusted_proxies)):
            grant = self._admission.grant(request.scope, table)
            if grant.role == "inference" or grant.workspace != DEFAULT_WORKSPACE:
                raise Forbidden(
                    f"From here this needs a key of workspace {DEFAULT_WORKSPACE} with role admin or developer."
                )
        try:
            others = await self._others.metrics_text()
        except Exception as error:
            log.debug("the control plane gives no metrics (%s)", type(error).__name__)
            others = ""
        text = await asyncio.to_thread(self._merged, table.number, others)
        return Response(text, headers={"content-type": metrics.CONTENT_TYPE})

    def _merged(self, number: int, others: str) -> str:
        return metrics.merge([self._figures.exposition(number), others])
