"""`args` of the control plane's application in a serve config."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from app.control_plane.faults import STEPS
from app.core.specs import EndpointSpec, MachineType
from app.unit.engine import Simulation

Declared = TypeVar("Declared", EndpointSpec, MachineType)


class ControlPlaneArgs(BaseModel):
    """`args` of the control plane's application in a serve config."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    endpoints: list[EndpointSpec] = []
    """Endpoints declared here; 'serve deploy' of an edited file adds, changes or removes just those."""
    machine_types: list[MachineType] = []
    """Beside the built-in ones (cpu-small, gpu-1), or instead of them under the same name."""
    idle_delete_days: Annotated[int, Field(ge=1, le=3650)] = 7
    """After so long without a request an endpoint that may sleep (scale.min_units 0) is deleted; a day before, an event
    says so."""
    tombstones_kept_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """How long a deleted endpoint can be restored."""
    events_kept_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """How long what happened to a record can be read."""
    keys_per_role: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Live API keys that a workspace may have of each role."""
    changes_per_key_s: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Requests a second, other than GET, that each key may send to the control API."""
    endpoints_per_workspace: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Endpoints that a workspace may have, stopped ones too; and as many deleted ones that can be restored."""
    models_per_workspace: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    unfinished_jobs_per_workspace: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    reserved_for_endpoints: dict[str, Annotated[float, Field(ge=0, le=1_000_000)]] = {}
    """Ray resources, such as {"GPU": 1}, that jobs leave free in the cluster, so that endpoints find room."""
    resources: dict[str, float] = {}
    """Ray resources that tie it to a node, such as {"head": 0.001}: its HOME holds the admin key."""
    simulations: dict[str, Simulation] = {}
    """For tests: endpoints (by name, or '*') that run the simulated engine instead of vLLM."""
    die_at: list[Annotated[str, Field(pattern=rf"^({'|'.join(STEPS)})( [^ ]+)?$")]] = []
    """For tests: kills the control plane when it reaches one of these steps, once for each in this HOME."""

    @field_validator("machine_types", "endpoints")
    @classmethod
    def _distinct(cls, declared: list[Declared], info: ValidationInfo) -> list[Declared]:
        names = [one.name for one in declared]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            what = str(info.field_name).removesuffix("s").replace("_", " ")
            raise ValueError(f"every {what} needs a name of its own; declared more than once: {', '.join(twice)}")
        return declared
