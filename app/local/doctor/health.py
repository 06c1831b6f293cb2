"""What `modelunit doctor` says of one thing."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Health(BaseModel):
    """How one thing is, and what to do where it is not well."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Health:
    """Nothing to do."""
    return Health(name=name, state="ok", found=found)


def warn(name: str, found: str, advice: str) -> Health:
    """It works, but slower or not for long."""
    return Health(name=name, state="warn", found=found, advice=advice)


def fail(name: str, found: str, advice: str) -> Health:
    """The platform does not work like this."""
    return Health(name=name, state="fail", found=found, advice=advice)


def gib(size_bytes: float) -> str:
    """As people read sizes."""
    return f"{size_bytes / (1 << 30):.1f} GiB"
