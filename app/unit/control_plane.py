"""The control plane as units reach it."""

from typing import NamedTuple

from ray import serve

from app.control_plane_handle import call
from app.core.lifecycle import parse_application_name

DEADLINE_S = 5.0


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


class ControlPlaneForUnit:
    """Its methods raise whatever Serve raises, and TimeoutError; while it is away nothing here waits for longer."""

    def __init__(self, unit: Unit):
        self._unit = unit

    async def phase(self, phase: str) -> None:
        """What this unit does while it starts."""
        await call("unit_phase", *self._unit, phase, deadline_s=DEADLINE_S)

    async def report(self, report: str) -> None:
        """How it is, a UnitReport as JSON."""
        await call("unit_report", *self._unit, report, deadline_s=DEADLINE_S)
