"""The replica that Serve runs."""

import asyncio
from types import SimpleNamespace
from typing import Any

from app.router.deployment import Router
from tests.router.units import until


async def test_a_router_that_drains_hears_of_new_tables_until_its_last_request_has_ended() -> None:
    last_request = asyncio.Event()

    async def step() -> None:
        pass

    router: Any = SimpleNamespace(
        _server=SimpleNamespace(should_exit=False),
        _serving=asyncio.create_task(last_request.wait()),
        _following=asyncio.create_task(asyncio.Event().wait()),
        _reporting=asyncio.create_task(asyncio.Event().wait()),
        _listener=SimpleNamespace(stop=lambda: None, settled=step),
        _reporter=SimpleNamespace(step=step),
        _sending_usage=asyncio.create_task(asyncio.Event().wait()),
        _usage=SimpleNamespace(close=step),
    )
    draining = asyncio.create_task(Router.__del__(router))
    await until(lambda: router._server.should_exit)
    assert not router._following.cancelling()
    last_request.set()
    await draining
    await until(router._following.cancelled)
