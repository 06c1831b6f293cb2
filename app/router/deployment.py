"""The router: Serve's ingress for everything that callers send, on a listener of its own.

It is an ordinary Serve application (route `/`), so Serve's proxy reaches it too; but that proxy takes each token
through a streaming generator (README, Performance, has figures), and HAProxy mode opens
ports and sockets to everybody. So each replica also listens on MODELUNIT_HTTP_HOST:MODELUNIT_HTTP_PORT itself;
replicas of one node share the port.
"""

import asyncio
import contextlib
import secrets
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from app.core.networks import Network
from app.loopback import keep_grpc_on_loopback
from app.router.admission import Admission
from app.router.call import Deadlines
from app.router.chat import ChatCompletions
from app.router.control_plane import ControlPlaneForRouter
from app.router.crowd import MAX_REQUESTS, Crowd
from app.router.directory import Directory
from app.router.docs_page import docs
from app.router.figures import Figures
from app.router.http_server import HttpServer, listen, server_config
from app.router.limits import Limits
from app.router.metrics_page import MetricsPage, MetricsSource
from app.router.openapi import DESCRIPTION
from app.router.platform_proxy import PlatformProxy
from app.router.predict import Predict
from app.router.queues import Queues
from app.router.reporter import Reporter
from app.router.stream import TokenListener
from app.router.surfaces import ark, openai, vertex
from app.router.usage import UsageMeter
from app.router.usage_sender import UsageSender
from app.router.usage_spool import UsageSpool
from app.router.waking import Waking
from app.settings import Settings
from app.store.objects import open_store
from app.web import EXCEPTION_HANDLERS, ErrorBoundary

DRAIN_TIMEOUT_S = 600.0
ALL_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class RouterArgs(BaseModel):
    """`args` of the router application in a serve config."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    replicas: int = Field(1, ge=1, le=64)
    body_limit_bytes: int = Field(8 << 20, ge=1024, le=32 << 20)
    first_token_timeout_s: float = Field(300.0, gt=0)
    between_tokens_timeout_s: float = Field(120.0, gt=0)
    answer_timeout_s: float = Field(3600.0, gt=0)
    trusted_proxies: list[Network] = Field([], max_length=64)
    """Networks (CIDR) of load balancers whose X-Forwarded-For tells who the client is."""
    metrics_networks: list[Network] = Field(["127.0.0.0/8", "::1/128"], max_length=64)
    """Networks (CIDR) from which GET /metrics needs no key."""


def asgi(
    args: RouterArgs,
    directory: Directory,
    listener: TokenListener,
    serve_proxy_url: str,
    figures: Figures,
    limits: Limits,
    others: MetricsSource,
    meter: UsageMeter,
) -> ASGIApp:
    """The router's HTTP surface over its parts; `others` knows the figures of all other routers and units."""
    deadlines = Deadlines(args.first_token_timeout_s, args.between_tokens_timeout_s, args.answer_timeout_s)
    queues = Queues(figures)
    admission = Admission(figures, queues, limits, args.trusted_proxies)
    waking = Waking(directory)
    chat = ChatCompletions(directory, listener, admission, waking, figures, deadlines, args.body_limit_bytes, meter)
    metrics_page = MetricsPage(directory, figures, admission, others, args.metrics_networks, args.trusted_proxies)
    predict = Predict(chat, directory, admission, figures, args.body_limit_bytes)
    platform = PlatformProxy(directory, admission, serve_proxy_url, args.body_limit_bytes)

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        ready = directory.loaded
        state = {
            "status": "ready" if ready else "waiting for the routing table",
            "routing_table": directory.table.number,
            "control_plane": "reachable" if directory.control_plane_reachable else "unreachable",
        }
        return JSONResponse(state, 200 if ready else 503)

    description = JSONResponse(DESCRIPTION).body  # once: it takes milliseconds

    async def openapi(_: Request) -> Response:
        return Response(description, media_type="application/json")

    routes = [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/openapi.json", openapi),
        Route("/docs", docs),
        Route("/metrics", metrics_page.__call__, methods=["GET"]),
        *openai.routes(chat, directory, admission),
        *ark.routes(chat, directory, admission),
        *vertex.routes(chat, predict, platform),
        Route("/platform/{path:path}", platform.__call__, methods=ALL_METHODS),
    ]
    middleware = [Middleware(ErrorBoundary), Middleware(Crowd, max_requests=MAX_REQUESTS)]
    return Starlette(routes=routes, middleware=middleware, exception_handlers=EXCEPTION_HANDLERS)


class Router:
    """Serve's replica class."""

    async def __init__(self, args: dict[str, Any]):  # type: ignore[misc]  # Serve awaits it
        keep_grpc_on_loopback()
        settings = Settings.from_environ()
        router = secrets.token_hex(8)
        control_plane = ControlPlaneForRouter(router)
        figures = Figures(router)
        self._directory = Directory(open_store(settings), control_plane)
        self._reporter = Reporter(figures, self._directory, control_plane)
        spool = UsageSpool(settings.usage_dir, router, figures.spool)
        self._usage = UsageSender(spool, control_plane)
        self._listener = TokenListener()
        await self._listener.start(ray.util.get_node_ip_address())
        await self._directory.load_snapshot()
        self._following = asyncio.create_task(self._directory.follow())
        self._reporting = asyncio.create_task(self._reporter.run())
        self._sending_usage = asyncio.create_task(self._usage.run())
        parsed = RouterArgs.model_validate(args)
        url, limits, meter = settings.serve_proxy_url, Limits(), UsageMeter(spool)
        self._app = asgi(parsed, self._directory, self._listener, url, figures, limits, control_plane, meter)
        self._server = HttpServer(server_config(self._app))
        self._serving = asyncio.create_task(self._server.serve([listen(settings.http_host, settings.http_port)]))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._app

    async def check_health(self) -> None:
        """Called by Serve: a router whose listener or table loop has ended must be replaced."""
        for task in (self._serving, self._following, self._reporting, self._sending_usage):
            if task.done():
                raise RuntimeError("a part of the router has stopped")

    async def __del__(self) -> None:
        """Serve calls this once the replica takes no more calls: let what runs end, then go."""
        self._server.should_exit = True
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(self._serving, DRAIN_TIMEOUT_S)
        self._following.cancel()  # not before: requests that wait for a unit have to hear what becomes of it
        await self._listener.settled()  # what it has heard of answers by then is all that is known of them
        self._listener.stop()
        self._sending_usage.cancel()
        await self._usage.close()
        self._reporting.cancel()
        await self._reporter.step()  # what was counted since the last report


def build(args: RouterArgs) -> Any:
    """The router's Serve application."""
    deployment = serve.deployment(serve.ingress()(Router), name="router").options(
        num_replicas=args.replicas,
        max_replicas_per_node=1 if args.replicas > 1 else None,
        max_surge_percent=100,  # the next router listens before this one stops
        max_ongoing_requests=MAX_REQUESTS,
        graceful_shutdown_timeout_s=DRAIN_TIMEOUT_S,
        ray_actor_options={"num_cpus": 0},
    )
    return deployment.bind(args.model_dump())
