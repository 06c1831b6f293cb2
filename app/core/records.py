"""The records of the registry. Frozen: a record changes by being replaced, and only the control plane writes."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from app.core.specs import EndpointSpec, Precision

DEFAULT_WORKSPACE = "default"

EndpointState = Literal[
    "scheduling", "healthy", "sleeping", "waking", "scaling", "upgrading", "alarm", "abnormal", "stopped", "deleting"
]
ModelState = Literal["preparing", "healthy", "failed", "deleting"]
VersionState = Literal["creating", "healthy", "failed", "failed_quality"]
JobState = Literal["creating", "queued", "running", "completed", "failed", "stopping", "stopped"]
JobType = Literal["finetune", "quantize", "validate", "benchmark"]
Role = Literal["admin", "developer", "inference"]
ManagedBy = Literal["api", "serve_config"]


class Record(BaseModel):
    """Something the registry keeps, owned by a workspace."""

    model_config = ConfigDict(frozen=True)

    id: str
    created_at: datetime


class Workspace(Record):
    """The tenant that owns everything else."""

    name: str


class Model(Record):
    """Weights in the model repository."""

    workspace: str
    name: str
    base_model: str
    state: ModelState
    reason: str = ""


class Version(Record):
    """One deployable precision of a model; (model_id, precision) is unique."""

    model_id: str
    precision: Precision
    prefix: str
    """Where its files lie in the object store."""
    digest: str
    """Hash of its manifest: another digest means other weights, so another revision."""
    state: VersionState
    reason: str = ""


class Endpoint(Record):
    """What people call. `generation` counts wishes; `observed_generation` is the last one carried out."""

    workspace: str
    spec: EndpointSpec
    managed_by: ManagedBy = "api"
    state: EndpointState = "scheduling"
    reason: str = ""
    generation: int = 1
    observed_generation: int = 0
    revision: str | None = None
    """The revision that serves, once one does."""
    running_units: int = 0


class Job(Record):
    """A run of a Ray job."""

    workspace: str
    type: JobType
    name: str
    state: JobState
    reason: str = ""
    spec: dict[str, object] = {}


class ApiKey(Record):
    """Permission to call; the key itself is never kept."""

    workspace: str
    role: Role
    hash: str
    prefix: str
    description: str = ""
    expires_at: datetime | None = None


class Event(Record):
    """Something that happened to a record, for people to read."""

    workspace: str
    subject: str
    """The ID of the record it happened to."""
    kind: str
    message: str
