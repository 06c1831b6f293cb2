"""What the control plane and a job process tell each other, as JSON files in the object store."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from app.core.findings import Facts, Finding
from app.core.model_specs import Source
from app.core.specs import Precision


class MachineMemory(BaseModel):
    """How much of weights and KV cache one unit of a machine type holds."""

    model_config = ConfigDict(frozen=True)

    name: str
    memory_bytes: int


class _Task(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str
    model_id: str
    base_model: str
    precision: Precision
    machines: tuple[MachineMemory, ...] = ()


class ValidateTask(_Task):
    """Look at weights and say what is wrong with them."""

    type: Literal["validate"] = "validate"
    source: Source | None = None
    prefix: str | None = None
    """Of a published version, when there is no source."""


class UploadTask(_Task):
    """Bring weights into the platform's object store as a version."""

    type: Literal["upload"] = "upload"
    source: Source
    name: str
    mode: Literal["copy", "reference"] = "copy"
    validation: bool = True
    listing: str | None = None
    """The fingerprint of the folder that was validated; the upload refuses any other."""


Task = Annotated[ValidateTask | UploadTask, Field(discriminator="type")]
TASK: TypeAdapter[ValidateTask | UploadTask] = TypeAdapter(Task)


class JobProgress(BaseModel):
    """How far a job is; replaced about once a second."""

    model_config = ConfigDict(frozen=True)

    phase: str = ""
    done_bytes: int = 0
    total_bytes: int = 0

    @property
    def fraction(self) -> float:
        """From 0 to 1."""
        return min(1.0, self.done_bytes / self.total_bytes) if self.total_bytes else 0.0


class JobOutcome(BaseModel):
    """How a job ended; written once, last of all."""

    model_config = ConfigDict(frozen=True)

    ok: bool
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    facts: Facts | None = None
    listing: str | None = None
    """ValidateTask: the fingerprint of the folder that was looked at."""
    read_bytes: int = 0
    prefix: str | None = None
    """UploadTask: where the version is published."""
    digest: str | None = None
    size_bytes: int = 0
