"""The records of the registry. Frozen: a record changes by being replaced, and only the control plane writes."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.core.capabilities import Origin
from app.core.findings import Facts, Finding
from app.core.key_limits import NO_LIMITS, KeyLimits
from app.core.model_specs import ModelSpec
from app.core.quality import QualityCard
from app.core.recipe import Recipe
from app.core.specs import DEFAULT_MACHINE_TYPE, EndpointSpec, Precision
from app.core.wakes import Stage

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
Units = Annotated[int, Field(ge=0, le=1 << 20)]


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
    origin: Origin = "uploaded"
    parent_model_id: str | None = None
    """The model that it was made of; that one may be gone."""
    job_id: str | None = None
    """The job that made it."""
    listing: str | None = None
    """The fingerprint of the source as it was validated, which is what is imported; None while that is not known."""


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
    job_id: str | None = None
    """The job that makes it or has made it; None for weights that were brought."""
    recipe: Recipe | None = None
    """How it was compressed."""
    quality: QualityCard | None = None
    """What that has cost."""
    quality_failures: tuple[str, ...] = ()
    """Where it did not pass the gate; such a version is `failed_quality`."""
    facts: Facts | None = None
    """What the validation of its own weights found out; None: the model's facts are of these weights."""
    size_bytes: int = 0
    """Of its files, where `facts` are its own."""


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
    starting_units: int = 0
    target_units: int = 0
    """How many units there are to be now, within the scale range."""
    machine_type: str = DEFAULT_MACHINE_TYPE
    """The spec's, or what the platform chose."""
    placement: str = ""
    """Why this machine type, when the platform chose it."""
    updated_at: datetime | None = None
    """When somebody last changed the wish."""
    running_since: datetime | None = None
    """When it first served since it was last started; auto-stop counts from here."""
    last_request_at: datetime | None = None
    idle_warned_at: datetime | None = None
    """When its deletion for want of traffic was announced."""
    deleted_at: datetime | None = None
    """Set on a tombstone: ID, settings and keys of an endpoint that is gone, kept for a while to be restored."""


StopReason = Literal["caller", "auto_stop", "preemption"]


class JobRun(BaseModel):
    """How the processes of a job stand to each other."""

    model_config = ConfigDict(frozen=True)

    attempts_before: int = 0
    """Attempts that do not count against the most: those before it was resumed, was queued again or got further."""
    checkpoint_before: int = 0
    """The newest checkpoint when the last attempt began."""
    stop_for: StopReason | None = None
    """Why it is being stopped."""
    stop_asked_at: datetime | None = None
    trained_before_s: float = 0.0
    """How long it had trained when it was resumed last: `auto_stop_s` counts from there."""


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
    eta_s: float | None = None
    metrics: dict[str, float] = {}
    """What it measures of itself, such as the loss."""
    output_model: str | None = None
    """The ID of the model that it made, once that is in the repository."""
    run: JobRun = JobRun()
    findings: tuple[Finding, ...] = ()
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Member(Record):
    """Somebody who may use a workspace, in a role, until an end date (S3: grants of 1 day, some days or for ever)."""

    workspace: str
    name: str
    role: Role
    expires_at: datetime | None = None


class ApiKey(Record):
    """Permission to call; the key itself is never kept."""

    workspace: str
    role: Role
    hash: str
    prefix: str
    description: str = ""
    endpoints: tuple[str, ...] | None = None
    """The only endpoints it may call and see, by ID; None: all of the workspace's."""
    limits: KeyLimits = NO_LIMITS
    member_id: str | None = None
    """The member it belongs to; it can do no more than that member, and ends with them."""
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    """To the minute."""


class Event(Record):
    """Something that happened to a record, for people to read."""

    workspace: str
    subject: str
    """The ID of the record it happened to."""
    kind: str
    message: str
    actor: str = "platform"
    """The ID of the key whose holder did it, or `platform`."""
    request_id: str = ""


class AuditEntry(Record):
    """One request that wanted to change something. Never changed, and not removed before its time."""

    workspace: str
    actor: str
    request_id: str
    action: str
    """Method and path template, such as `PATCH /platform/v1/endpoints/{endpoint_id}`; in an entry beside that one
    `accept_quality VERSION`, where the request says that a version is served whatever it has cost in quality.
    """
    subject: str
    """The ID in the path, or that of what was made."""
    status: int
    """Of the answer."""


class EndpointMinute(Record):
    """An endpoint's figures of one minute, which `created_at` begins."""

    endpoint_id: str
    figures: dict[str, float] = {}


class UnitStart(Record):
    """How long the first unit of an endpoint took to start, in seconds by stage."""

    endpoint_id: str
    machine_type: str
    phases: dict[Stage, float] = {}


class ScalingDecision(Record):
    """A change of how many units an endpoint is to have, with all that it followed from; `created_at` is when.

    `signals`, `rules` and `timers` are what app/core/scaling.py was asked with, `timers` as they were before.
    """

    endpoint_id: str
    revision: str
    signals: dict[str, int | float | None] = {}
    rules: dict[str, int | float | None] = {}
    timers: dict[str, int | float | None] = {}
    rule: str
    """What called for the change."""
    bound: str = ""
    """What held it back; empty: nothing did."""
    from_units: Units
    to_units: Units


class Counted(Record):
    """How much of a router's or a unit's counters is in the minutes already; `created_at` is when it said so."""

    started_at: float
    """Unix time in seconds; the same reporter started again counts from zero."""
    counters: dict[str, dict[str, float]] = {}
    """Endpoint ID -> counter -> its value."""


class UsageHour(Record):
    """What an hour, which `created_at` begins, has taken of an account; it outlives all that it names."""

    day: str
    """Of the hour, in UTC, such as 2026-01-31."""
    workspace: str
    endpoint_id: str
    endpoint_name: str = ""
    """As it was called then."""
    key_id: str
    key_description: str = ""
    requests: int = 0
    partial_requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class UsageSpool(Record):
    """How much of a router's usage file is in the hours already; `created_at` is when some of it came last."""

    taken_bytes: int


class Replay(Record):
    """What an Idempotency-Key has made already; its ID is a hash of workspace, path and that key."""

    workspace: str
    body_hash: str
    record_id: str
