"""The records of the registry. Frozen: a record changes by being replaced, and only the control plane writes."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from app.core.findings import Facts, Finding
from app.core.model_specs import ModelSpec
from app.core.specs import EndpointSpec, Precision

DEFAULT_WORKSPACE = "default"

EndpointState = Literal[
    "scheduling", "healthy", "sleeping", "waking", "scaling", "upgrading", "alarm", "abnormal", "stopped", "deleting"
]
ModelState = Literal["preparing", "healthy", "failed", "deleting"]
VersionState = Literal["creating", "healthy", "failed", "failed_quality"]
JobState = Literal["creating", "queued", "running", "completed", "failed", "stopping", "stopped"]
JobType = Literal["upload", "finetune", "quantize", "validate", "benchmark"]
"""`upload` is the copying that every new model begins with; nobody asks for it by itself."""
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
    description: str = ""
    spec: ModelSpec | None = None
    """What its creator asked for; None for one that was found in the object store."""
    state: ModelState
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    """The last validation's."""
    facts: Facts = Facts()
    size_bytes: int = 0


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
    model_id: str | None = None
    """The model it works on; the record outlives the model."""
    model_name: str = ""
    state: JobState
    reason: str = ""
    spec: dict[str, object] = {}
    """What the job process is told."""
    attempts: int = 0
    """How often it was submitted: a run that was lost is submitted again."""
    progress: float = 0.0
    """From 0 to 1."""
    done_bytes: int = 0
    total_bytes: int = 0
    findings: tuple[Finding, ...] = ()
    started_at: datetime | None = None
    finished_at: datetime | None = None


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
