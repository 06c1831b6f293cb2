"""What people wish for: the parts of an endpoint that they write, in YAML and over the API alike."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.core.names import ServiceName

Precision = Literal["BF16", "W8A8_FP8", "SmoothQuant-W8A8", "AWQ-W4A16", "W4A8"]
"""A deployable precision; BF16 stands for 'not quantized'."""

DEFAULT_MACHINE_TYPE = "cpu-small"


class Spec(BaseModel):
    """Strict about types and unknown fields, and frozen: a spec changes by being replaced."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class EngineSpec(Spec):
    """Settings of the vLLM engine inside each unit. Whatever is left out is the machine type's default."""

    prefix_caching: bool = True
    enforce_eager: bool | None = None
    """Skip compilation: starts in seconds. Whether compiled code would answer faster on CPU has not been measured."""
    kv_cache_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    max_num_seqs: Annotated[int, Field(ge=1, le=4096)] = 64
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None


class ScaleSpec(Spec):
    """The range in which units come and go."""

    min_units: Annotated[int, Field(ge=1, le=64)] = 1
    max_units: Annotated[int, Field(ge=1, le=64)] = 1

    @model_validator(mode="after")
    def _ordered(self) -> "ScaleSpec":
        if self.min_units > self.max_units:
            raise ValueError(f"min_units ({self.min_units}) is above max_units ({self.max_units})")
        return self


class EndpointSpec(Spec):
    """One endpoint as people declare it, in `args.endpoints` of a serve config or in POST /platform/v1/endpoints."""

    name: ServiceName
    description: Annotated[str, Field(max_length=256)] = ""
    model: Annotated[str, Field(min_length=1, max_length=128)]
    """A model's ID or its name."""
    precision: Precision = "BF16"
    machine_type: str = DEFAULT_MACHINE_TYPE
    scale: ScaleSpec = ScaleSpec()
    max_model_len: Annotated[int, Field(ge=16, le=1 << 24)] = 4096
    """Longest prompt plus answer, in tokens (S3: 4096 unless the model says otherwise)."""
    engine: EngineSpec = EngineSpec()


class MachineType(Spec):
    """A slot that one unit fills: what the scheduler sets aside and what the engine may use."""

    name: str
    accelerator: str | None = None
    """Ray's accelerator type, or None for CPU."""
    accelerator_count: Annotated[int, Field(ge=0, le=64)] = 0
    cpus: Annotated[float, Field(ge=0)] = 0.25
    """Logical CPUs for placement only; the engine's threads are set apart from it."""
    engine_threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of an engine on CPU; None means all cores."""
    kv_cache_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    """KV cache of an engine on CPU; on a GPU vLLM takes what the card has free."""
    enforce_eager: bool = False
    memory_bytes: Annotated[int, Field(ge=1)] | None = None
    """For weights and KV cache; None: not known, as on CPU, where it is what the node has free."""


CPU_SMALL = MachineType(name=DEFAULT_MACHINE_TYPE, kv_cache_bytes=512 << 20, enforce_eager=True)
GPU_1 = MachineType(name="gpu-1", accelerator_count=1, cpus=1)
MACHINE_TYPES = {machine.name: machine for machine in (CPU_SMALL, GPU_1)}
