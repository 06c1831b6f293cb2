"""The control plane: one replica that owns the registry, the reconciler and the control API."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, field_validator
from ray import serve
from starlette.responses import Response
from starlette.types import ASGIApp

from app import __version__
from app.control_plane.api import api_keys, catalog, endpoints, jobs, models
from app.control_plane.cluster import Cluster
from app.control_plane.platform import Platform
from app.core.field_errors import explain
from app.core.specs import EndpointSpec
from app.loopback import keep_grpc_on_loopback
from app.settings import Settings
from app.unit.engine import Simulation
from app.web import EXCEPTION_HANDLERS, ErrorBoundary, error_response

SHUTDOWN_TIMEOUT_S = 1.0
"""Routers wait in long-polls, which would keep an old reconciler alive beside its successor."""
MAX_ROUTERS = 64


class ControlPlaneArgs(BaseModel):
    """`args` of the control plane's application in a serve config."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    endpoints: list[EndpointSpec] = []
    """Endpoints declared here; 'serve deploy' of an edited file adds, changes or removes just those."""
    resources: dict[str, float] = {}
    """Ray resources that tie it to a node, such as {"head": 0.001}: its HOME holds the admin key."""
    simulations: dict[str, Simulation] = {}
    """For tests: endpoints (by name, or '*') that run the simulated engine instead of vLLM."""

    @field_validator("endpoints")
    @classmethod
    def _distinct(cls, endpoints: list[EndpointSpec]) -> list[EndpointSpec]:
        names = [endpoint.name for endpoint in endpoints]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"every endpoint needs a name of its own; declared more than once: {', '.join(twice)}")
        return endpoints


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

    for module in (endpoints, models, jobs, catalog, api_keys):
        app.include_router(module.router)
    app.add_middleware(ErrorBoundary)
    return app


class ControlPlane:
    """Serve's replica class."""

    async def __init__(self, args: str):  # type: ignore[misc]  # Serve awaits it
        keep_grpc_on_loopback()
        parsed = ControlPlaneArgs.model_validate_json(args)
        self._platform = Platform(Settings.from_environ(), Cluster(), parsed.simulations)
        self._waiting = ThreadPoolExecutor(MAX_ROUTERS, "routers")  # Ray gives a replica without CPUs five threads
        await asyncio.to_thread(self._platform.open, parsed.endpoints)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return asgi(self._platform)

    async def next_table(self, after: int, wait_s: float, router: str) -> bytes | None:
        """For routers: the routing table as JSON once its number is not `after`; None when `wait_s` have passed."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._waiting, self._platform.tables.wait, after, min(wait_s, 60.0), router)

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
