"""A unit's way to the control plane, by its Serve handle."""

import asyncio
from typing import NamedTuple

from ray import serve

from app.core.lifecycle import parse_application_name


class Unit(NamedTuple):
    """Which unit this replica is."""

    endpoint_id: str
    revision: str
    name: str
    """Letters and digits; no two units of an endpoint have the same."""


def this_unit() -> Unit:
    """For a replica of an endpoint's application."""
    replica = serve.get_replica_context()
    application = parse_application_name(replica.app_name)
    assert application
    return Unit(*application, replica.replica_tag[-8:])


async def tell(method: str, *what: str) -> None:
    """Call a method of the control plane. Raises whatever Serve raises, and waits as long as Serve does."""
    handle = serve.get_deployment_handle("control_plane", "control_plane", _check_exists=False)
    response = getattr(handle, method).remote(*what)
    try:
        await response
    except asyncio.CancelledError:
        response.cancel()
        raise
