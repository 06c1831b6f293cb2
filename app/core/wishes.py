"""How an endpoint's record changes with a wish. Every wish has a number of its own, its generation."""

from datetime import datetime
from typing import Any, Literal, NamedTuple

from app.core.records import Endpoint, EndpointState
from app.core.specs import EndpointSpec


class Machine(NamedTuple):
    """What an endpoint's units run on."""

    machine_type: str
    placement: str = ""
    """Why that one, where the platform chose."""


def wished(endpoint: Endpoint, now: datetime, **update: Any) -> Endpoint:
    """The endpoint with these fields wished otherwise."""
    return endpoint.model_copy(update={"generation": endpoint.generation + 1, "updated_at": now, **update})


def respecified(endpoint: Endpoint, spec: EndpointSpec, machine: Machine, now: datetime) -> Endpoint:
    """It goes on with another spec."""
    return wished(endpoint, now, spec=spec, machine_type=machine.machine_type, placement=machine.placement)


def resting(endpoint: Endpoint, state: Literal["stopped", "deleting"], reason: str, now: datetime) -> Endpoint:
    """Its units go. Why it stopped stays to be read; what is deleted only needs an event."""
    kept = reason if state == "stopped" else ""
    rest = {"revision": None, "starting_units": 0, "target_units": 0, "running_since": None}
    return wished(endpoint, now, state=state, reason=kept, **rest)


def running(endpoint: Endpoint, spec: EndpointSpec, machine: Machine, now: datetime) -> Endpoint:
    """It begins again, from whatever state, with its ID; the stop rules count from now."""
    state: EndpointState = "scheduling"
    fresh = {"state": state, "reason": "", "revision": None, "running_since": None}
    return respecified(endpoint, spec, machine, now).model_copy(
        update={**fresh, "deleted_at": None, "idle_warned_at": None}
    )
