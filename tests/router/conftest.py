"""A router on a fixed routing table, in front of units that follow scripts."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
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
from app.router.stream import TokenListener
from app.store.file_store import FileStore
from app.store.layout import SNAPSHOT
from tests.router.tables import KEY, MakeRouter, NoControlPlane, table
from tests.router.units import WAIT_S, Script, UnitDirectory, Units


@dataclass
class Router:
    """A router under test."""

    app: ASGIApp
    units: Units
    directory: Directory

    def http(self, key: str | None = KEY) -> httpx.AsyncClient:
        """A client without a network in between."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://router", headers=headers, timeout=WAIT_S
        )

    def openai(self, key: str = KEY) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url="http://router/v1", api_key=key, http_client=self.http(None), max_retries=0, timeout=WAIT_S
        )


@pytest.fixture
async def make_router(tmp_path: Path) -> AsyncIterator[MakeRouter]:
    """A router in front of units that follow the given scripts."""
    listeners = []

    async def make(
        *scripts: Script, snapshot: RoutingTable | None = None, serve_proxy_url: str = "http://127.0.0.1:1", **args: Any
    ) -> Router:
        store = FileStore(tmp_path / "objects")
        store.write(SNAPSHOT, (snapshot or table()).model_dump_json().encode())
        units = Units(*scripts)
        directory = UnitDirectory(store, NoControlPlane(), units)
        await directory.load_snapshot()
        listener = TokenListener()
        await listener.start("127.0.0.1")
        listeners.append(listener)
        return Router(asgi(RouterArgs(**args), directory, listener, serve_proxy_url), units, directory)

    yield make
    for listener in listeners:
        listener.stop()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[ASGIApp], str]]:
    """Puts an application on a free port of this machine and gives its address."""
    async with AsyncExitStack() as cleanup:

        def start(app: ASGIApp) -> str:
            listener = socket.create_server(("127.0.0.1", 0))
            config = uvicorn.Config(app, lifespan="off", http="httptools", log_config=None, timeout_graceful_shutdown=1)
            server = _Server(config)
            task = asyncio.create_task(server.serve([listener]))

            async def stop() -> None:
                server.should_exit = server.force_exit = True
                async with asyncio.timeout(WAIT_S):
                    await task

            cleanup.push_async_callback(stop)
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

        yield start
