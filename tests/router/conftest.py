"""A router on a fixed routing table, in front of units that follow scripts."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from starlette.types import ASGIApp

from app.core.routing import RoutingTable
from app.router.deployment import RouterArgs, asgi
from app.router.directory import Directory
from app.router.figures import Figures
from app.router.http_server import HttpServer
from app.router.limits import Limits
from app.router.stream import TokenListener
from app.router.usage import UsageMeter
from app.store.file_store import FileStore
from app.store.layout import SNAPSHOT
from tests.router.tables import KEY, Book, Clock, MakeRouter, NoControlPlane, Others, table
from tests.router.units import WAIT_S, Script, Units


@dataclass
class Router:
    """A router under test."""

    app: ASGIApp
    units: Units
    directory: Directory
    figures: Figures
    clock: Clock
    """What it measures durations and limits by."""
    wall: Clock
    others: Others
    listener: TokenListener
    book: Book
    """What it writes down of usage."""

    def publish(self, table: RoutingTable) -> None:
        """The control plane has a new table."""
        self.directory._take(table.model_dump_json().encode())

    def http(self, key: str | None = KEY, peer: str = "127.0.0.1") -> httpx.AsyncClient:
        """A client without a network in between."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        transport = httpx.ASGITransport(self.app, client=(peer, 1234))
        return httpx.AsyncClient(transport=transport, base_url="http://router", headers=headers, timeout=WAIT_S)

    def openai(self, key: str = KEY) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url="http://router/v1", api_key=key, http_client=self.http(None), max_retries=0, timeout=WAIT_S
        )


@pytest.fixture
async def make_router(tmp_path: Path) -> AsyncIterator[MakeRouter]:
    """A router in front of units that follow the given scripts."""
    listeners = []

    async def make(
        *scripts: Script,
        snapshot: RoutingTable | None = None,
        serve_proxy_url: str = "http://127.0.0.1:1",
        limits: Limits | None = None,
        **args: Any,
    ) -> Router:
        store = FileStore(tmp_path / "objects")
        store.write(SNAPSHOT, (snapshot or table()).model_dump_json().encode())
        units = Units(*scripts)
        directory = Directory(store, NoControlPlane(), units.handle)
        await directory.load_snapshot()
        listener = TokenListener()
        await listener.start("127.0.0.1")
        listeners.append(listener)
        clock, wall, others = Clock(100.0), Clock(1_770_000_000.0), Others()
        figures = Figures("router-1", clock, wall)
        book = Book()
        meter = UsageMeter(book, wall)
        limits = limits or Limits(clock)
        app = asgi(RouterArgs(**args), directory, listener, serve_proxy_url, figures, limits, others, meter)
        return Router(app, units, directory, figures, clock, wall, others, listener, book)

    yield make
    for listener in listeners:
        listener.stop()


@pytest.fixture
async def serve_with() -> AsyncIterator[Callable[[uvicorn.Config], str]]:
    """Puts a server on a free port of this machine and gives its address."""
    async with AsyncExitStack() as cleanup:

        def start(config: uvicorn.Config) -> str:
            listener = socket.create_server(("127.0.0.1", 0))
            server = HttpServer(config)
            task = asyncio.create_task(server.serve([listener]))

            async def stop() -> None:
                server.should_exit = server.force_exit = True
                async with asyncio.timeout(WAIT_S):
                    await task

            cleanup.push_async_callback(stop)
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

        yield start


@pytest.fixture
def serve(serve_with: Callable[[uvicorn.Config], str]) -> Callable[[ASGIApp], str]:
    """The same for an application."""

    def start(app: ASGIApp) -> str:
        return serve_with(
            uvicorn.Config(app, lifespan="off", http="httptools", log_config=None, timeout_graceful_shutdown=1)
        )

    return start
