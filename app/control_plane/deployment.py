"""The control plane: one replica that owns the registry, the reconciler and the control API."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from ray import serve
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from app import __version__
from app.control_plane.api import (
    api_keys,
    audit,
    catalog,
    endpoints,
    events,
    jobs,
    logs,
    machine_types,
    members,
    metrics,
    models,
    scaling,
    snippets,
    usage,
    vertex,
    workspaces,
)
from app.control_plane.api.access import Authenticated
from app.control_plane.api.audit import Audited
from app.control_plane.api.bodies import BoundedBodies
from app.control_plane.api.paced import Paced
from app.control_plane.api.refused import REFUSED
from app.control_plane.args import ControlPlaneArgs
from app.control_plane.cluster import Cluster
from app.control_plane.platform import Platform
from app.control_plane.services.exposition import metrics_text
from app.core.field_errors import explain
from app.loopback import keep_grpc_on_loopback
from app.settings import Settings
from app.web import EXCEPTION_HANDLERS, ErrorBoundary, error_response

SHUTDOWN_TIMEOUT_S = 1.0
"""Routers wait in long-polls, which would keep an old reconciler alive beside its successor."""
MAX_ROUTERS = 64


@cache
def _routes() -> tuple[BaseRoute, ...]:
    """Made once a process: FastAPI takes a tenth of a second to read what all of them take and give."""
    every = APIRouter(responses=REFUSED)
    for module in (
        events, endpoints, metrics, scaling, logs, snippets, models, jobs, catalog, workspaces, members, api_keys,
        audit, machine_types, usage, vertex,
    ):  # fmt: skip
        every.include_router(module.router)
    return tuple(every.routes)


def asgi(platform: Platform) -> ASGIApp:
    """The control API over its services."""
    app = FastAPI(
        title="modelunit control plane",
        version=__version__,
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        exception_handlers=EXCEPTION_HANDLERS,  # type: ignore[arg-type]
    )
    app.state.platform = platform

    @app.exception_handler(RequestValidationError)
    async def wrong_field(_: Request, error: RequestValidationError) -> Response:
        # FastAPI puts the part of the request ("body", "query") before the field's name.
        return error_response(explain([{**e, "loc": tuple(e["loc"])[1:]} for e in error.errors()]))

    app.router.routes.extend(_routes())
    # The last one added is asked first.
    app.add_middleware(BoundedBodies)
    app.add_middleware(Audited, audit=platform.audit)
    app.add_middleware(Paced, pace=platform.pace)
    app.add_middleware(Authenticated, keys=platform.keys)
    app.add_middleware(ErrorBoundary, behind_router=True)  # Serve's proxy listens on each node's loopback only
    return app


class ControlPlane:
    """Serve's replica class."""

    async def __init__(self, args: str):  # type: ignore[misc]  # Serve awaits it
        keep_grpc_on_loopback()
        parsed = ControlPlaneArgs.model_validate_json(args)
        self._platform = Platform(Settings.from_environ(), Cluster(asyncio.get_running_loop()), parsed)
        self._waiting = ThreadPoolExecutor(MAX_ROUTERS, "routers")  # Ray gives a replica without CPUs five threads
        await asyncio.to_thread(self._platform.open)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return asgi(self._platform)

    async def next_table(self, after: int, wait_s: float, router: str) -> bytes | None:
        """For routers: the routing table as JSON once its number is not `after`; None when `wait_s` have passed."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._waiting, self._platform.tables.wait, after, min(wait_s, 60.0), router)

    async def unit_phase(self, endpoint_id: str, revision: str, unit: str, phase: str) -> None:
        """For units: what one that starts does now, as part of a sentence, such as "checking weights"."""
        if self._platform.phases.hear(endpoint_id, revision, unit, phase):
            self._platform.endpoint_loop.nudge()

    async def unit_report(self, endpoint_id: str, revision: str, unit: str, report: str) -> None:
        """For units: a UnitReport as JSON, every few seconds from when its engine runs."""
        if self._platform.phases.started(endpoint_id, revision, unit):
            self._platform.endpoint_loop.nudge()
        await asyncio.to_thread(self._platform.figures.unit_report, endpoint_id, revision, unit, report)

    async def router_report(self, router: str, report: str) -> None:
        """For routers: a RouterReport as JSON, every few seconds."""
        await asyncio.to_thread(self._platform.figures.router_report, router, report)

    async def usage(self, batch: str) -> int:
        """For routers: a UsageBatch as JSON; returns up to where its spool is taken."""
        return await asyncio.to_thread(self._platform.usage.take, batch)

    async def metrics_text(self) -> str:
        """For routers: what Prometheus is to hear of all routers and units."""
        return await asyncio.to_thread(metrics_text, self._platform.figures)

    async def check_health(self) -> None:
        """Called by Serve: without its loop the control plane must be replaced."""
        if not all(loop.alive for loop in self._platform.loops):
            raise RuntimeError("a loop has stopped")

    async def __del__(self) -> None:
        """Serve calls this when the replica stops."""
        self._platform.close()


def build(args: ControlPlaneArgs) -> Any:
    """The control plane's Serve application."""
    deployment = serve.deployment(serve.ingress()(ControlPlane), name="control_plane").options(
        num_replicas=1,
        max_ongoing_requests=1024,
        graceful_shutdown_timeout_s=SHUTDOWN_TIMEOUT_S,
        ray_actor_options={"num_cpus": 0, "resources": args.resources},
    )
    return deployment.bind(args.model_dump_json())
