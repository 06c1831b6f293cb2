"""Calls of the control plane by its Serve handle: how routers and units reach it."""

import asyncio
from typing import Any

from ray import serve


async def call(method: str, *arguments: Any, deadline_s: float) -> Any:
    """What a method of the control plane's replica returns.

    Raises TimeoutError after the deadline, and whatever Serve raises. A call that is given up is cancelled there too.
    """
    handle = serve.get_deployment_handle("control_plane", "control_plane", _check_exists=False)
    response = getattr(handle, method).remote(*arguments)
    try:
        async with asyncio.timeout(deadline_s):
            return await response
    except (TimeoutError, asyncio.CancelledError):
        response.cancel()
        raise
