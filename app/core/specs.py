"""What people wish for: the parts of an endpoint that they write, in YAML and over the API alike."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.core.chat_terms import Features, RequestDefaults
from app.core.names import ServiceName
from app.core.networks import Network

Precision = Literal["BF16", "W8A8_FP8", "SmoothQuant-W8A8", "AWQ-W4A16", "W4A8"]
"""A deployable precision; BF16 stands for 'not quantized'."""

DEFAULT_MACHINE_TYPE = "cpu-small"
USUAL_LENGTH_TOKENS = 4096
"""Longest prompt plus answer of a model of which the catalogue says nothing else (S3, table 8-1)."""
SHORTEST_TOKENS = 16
"""That an endpoint may be made for."""
MAX_BYTES = 1 << 50
"""More than any machine has; what is above it can be neither told nor added up."""

TierName = Literal["low", "medium", "high"]
"""How much a unit takes on at once: a lower tier answers faster and calls for more units sooner."""

MOST_UNITS = 64
"""Of one endpoint."""
MOST_QUEUED = 100_000
"""The most that `limits.max_queued` may be."""
IDLE_TO_ZERO_S = 300
"""After so long without a request an endpoint may sleep that says nothing else."""


class Spec(BaseModel):
    """Strict about types and unknown fields, and frozen: a spec changes by being replaced."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class EngineSpec(Spec):
    """Settings of the vLLM engine inside each unit. Whatever is left out is the machine type's default."""

    prefix_caching: bool = True
    enforce_eager: bool | None = None
    """Skip compilation: starts in seconds. Whether compiled code would answer faster on CPU has not been measured."""
    kv_cache_bytes: Annotated[int, Field(ge=1 << 20, le=MAX_BYTES)] | None = None
    max_num_seqs: Annotated[int, Field(ge=1, le=4096)] = 64
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None


class ScaleSpec(Spec):
    """When units come and go, and between which bounds. Both are multiples of the machine type's step, which is
    checked where that is known; 0 lets the endpoint sleep while nobody calls.
    """

    min_units: Annotated[int, Field(ge=0, le=MOST_UNITS)] = 1
    max_units: Annotated[int, Field(ge=1, le=MOST_UNITS)] = 1
    tier: TierName | None = None
    """How many requests a unit works on at once before more units come; None: high, as many as the engine takes."""
    target_concurrency: Annotated[int, Field(ge=1, le=4096)] | None = None
    """The same as a number, instead of a tier."""
    idle_to_zero_s: Annotated[int, Field(ge=10, le=30 * 86_400)] | None = None
    """Sleep after so long without a request; only with min_units 0, where None means IDLE_TO_ZERO_S."""
    down_after_s: Annotated[int, Field(ge=1, le=86_400)] = 60
    """Fewer units only once fewer have been enough for so long."""
    drain_s: Annotated[int, Field(ge=1, le=3600)] = 600
    """How long a unit that is told to go may finish what it has begun."""

    @model_validator(mode="after")
    def _sound(self) -> "ScaleSpec":
        if self.min_units > self.max_units:
            raise ValueError(f"min_units ({self.min_units}) is above max_units ({self.max_units})")
        if self.idle_to_zero_s is not None and self.min_units:
            raise ValueError(f"idle_to_zero_s needs min_units 0, and min_units is {self.min_units}")
        return self

    @property
    def sleeps_after_s(self) -> int | None:
        """After so long without a request no unit runs; None: it never sleeps."""
        return (self.idle_to_zero_s or IDLE_TO_ZERO_S) if self.min_units == 0 else None


class LimitsSpec(Spec):
    """What an endpoint takes at most; beyond it callers get 429."""

    qps_per_unit: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """Requests a second for each running unit (S3, table 8-1); None: no such limit."""
    max_queued: Annotated[int, Field(ge=1, le=MOST_QUEUED)] | None = None
    """Requests that may wait while units work on others or start; None: four times what its units work on at once."""


class EndpointSpec(Spec):
    """One endpoint as people declare it, in `args.endpoints` of a serve config or in POST /platform/v1/endpoints."""

    name: ServiceName
    description: Annotated[str, Field(max_length=256)] = ""
    model: Annotated[str, Field(min_length=1, max_length=128)]
    """A model's ID or its name."""
    precision: Precision = "BF16"
    machine_type: Annotated[str, Field(max_length=64)] | None = None
    """None lets the platform choose; the record says what it chose."""
    scale: ScaleSpec = ScaleSpec()
    limits: LimitsSpec = LimitsSpec()
    max_model_len: Annotated[int, Field(ge=SHORTEST_TOKENS, le=1 << 24)] | None = None
    """Longest prompt plus answer, in tokens; None: what `length_tokens` says of the model (S3: 4096 for most)."""
    engine: EngineSpec = EngineSpec()
    request_defaults: RequestDefaults = RequestDefaults()
    """Values of fields that chat requests leave out. Routers add them, so no unit restarts for a change."""
    features: Features = Features()
    accept_quality: bool = False
    """Serve a version too that has failed its quality gate; who says so is kept in the audit."""
    auto_stop_s: Annotated[int, Field(ge=60, le=366 * 86_400)] | None = None
    """Stop after so long in service (S3, table 8-1: 1, 2, 4, 6 hours or custom); preparation does not count."""
    allowed_networks: Annotated[tuple[Network, ...], Field(max_length=64, strict=False)] = ()  # YAML has no tuples
    """Networks (CIDR) from which it may be called; none: from everywhere."""


class DeploymentMode(Spec):
    """One way to spread a unit over machines (S1: one machine or several)."""

    machines: Annotated[int, Field(ge=1, le=64)] = 1
    tensor_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1
    pipeline_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1


def _on_one_machine(fields: dict[str, Any]) -> tuple[DeploymentMode, ...]:
    """The way to use all cards of one machine."""
    return (DeploymentMode(tensor_parallel_size=max(1, fields.get("accelerator_count", 1))),)


class MachineType(Spec):
    """A slot that one unit fills: what the scheduler sets aside and what the engine may use."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]
    accelerator: Annotated[str, Field(max_length=64)] | None = None
    """Ray's accelerator type (such as H100), or None: CPU, or any card where `accelerator_count` is above 0."""
    accelerator_count: Annotated[int, Field(ge=0, le=64)] = 0
    """Cards per machine."""
    accelerator_memory_bytes: Annotated[int, Field(ge=1 << 30, le=MAX_BYTES)] | None = None
    """Of one card; None: not known, so nothing is refused for want of it."""
    cpus: Annotated[float, Field(ge=0, le=4096)] = 0.25
    """Logical CPUs for placement only; the engine's threads are set apart from it."""
    amx: bool | None = None
    """Whether its CPUs have Intel's matrix instructions, without which no FP8 is served on a CPU; None: as the machine
    has that the control plane runs on.
    """
    memory_bytes: Annotated[int, Field(ge=1, le=MAX_BYTES)] | None = None
    """Main memory a unit may take; None: not known, as on one machine, where it is what the node has free."""
    step: Annotated[int, Field(ge=1, le=64)] = 1
    """Units come and go in multiples of this (S2)."""
    quota: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Units that each workspace may have at most; None: any number."""
    quotas: Annotated[dict[ServiceName, Annotated[int, Field(ge=0, le=100_000)]], Field(max_length=1000)] = {}
    """Units that some workspaces, by name or ID, may have instead."""
    driver: Annotated[str, Field(max_length=64)] | None = None
    """The accelerator's driver version that a node must have (S3 knows one that works); None: any."""
    resources: dict[str, Annotated[float, Field(gt=0, le=1_000_000)]] = {}
    """Ray custom resources that select the nodes, for each machine."""
    labels: dict[str, str] = {}
    """Ray node labels that select the nodes."""
    modes: Annotated[tuple[DeploymentMode, ...], Field(min_length=1, max_length=16, strict=False)] = Field(
        default_factory=_on_one_machine
    )
    """Ways to spread a unit; a model takes the one with the fewest machines that hold it."""
    precisions: Annotated[tuple[Precision, ...], Field(strict=False)] | None = None
    """What can be served there; None: what its kind of accelerator can."""
    engine_threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads of an engine on CPU; None means all cores."""
    kv_cache_bytes: Annotated[int, Field(ge=1 << 20, le=MAX_BYTES)] | None = None
    """KV cache of an engine on CPU; on a GPU vLLM takes what the card has free."""
    enforce_eager: bool = False

    @model_validator(mode="after")
    def _uses_its_cards(self) -> "MachineType":
        if self.accelerator and not self.accelerator_count:
            raise ValueError(f"accelerator {self.accelerator} needs an accelerator_count above 0")
        for mode in self.modes:
            if mode.machines > 1 and not self.accelerator_count:
                raise ValueError("a mode with several machines needs an accelerator_count above 0")
            ranks, cards = mode.tensor_parallel_size * mode.pipeline_parallel_size, max(1, self.accelerator_count)
            if ranks != mode.machines * cards:
                raise ValueError(
                    f"tensor_parallel_size x pipeline_parallel_size is {ranks}, but a mode of {mode.machines} machines "
                    f"has {mode.machines * cards} places; one for each card"
                )
        return self


CPU_SMALL = MachineType(name=DEFAULT_MACHINE_TYPE, kv_cache_bytes=512 << 20, enforce_eager=True)
GPU_1 = MachineType(name="gpu-1", accelerator_count=1, cpus=1)
MACHINE_TYPES = {machine.name: machine for machine in (CPU_SMALL, GPU_1)}
"""What there is when the serve config declares none."""
