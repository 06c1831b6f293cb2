"""What people ask for when they bring weights: the body of POST /platform/v1/models."""

import re
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator

from app.core.names import ModelName
from app.core.specs import Precision, Spec
from app.core.texts import Line

_ENDPOINT_URL = r"^https?://[A-Za-z0-9._\[\]-][A-Za-z0-9._:\[\]-]*/?$"
_S3_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?")


class Source(Spec):
    """Where the weights lie. Whatever is left out is as for the platform's own object store."""

    uri: Annotated[str, Field(max_length=2048)]
    """`s3://BUCKET/FOLDER` or `file:///FOLDER`."""
    endpoint_url: Annotated[str, Field(pattern=_ENDPOINT_URL, max_length=512)] | None = None
    """Of another S3 server, without credentials."""
    region: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] | None = None
    addressing_style: Literal["auto", "path", "virtual"] | None = None
    profile: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = None
    """Credentials by name, from the shared AWS configuration of the platform's machines."""

    @field_validator("uri")
    @classmethod
    def _known(cls, uri: str) -> str:
        scheme, _, rest = uri.partition("://")
        if not uri.startswith("file:///") and not _S3_URI.fullmatch(uri):
            raise ValueError("it must be s3://BUCKET/FOLDER or file:///FOLDER")
        if any(part in (".", "..") for part in rest.split("/")) or not uri.isprintable():
            raise ValueError("it must not contain '.', '..' or control characters")
        if scheme == "s3" and "//" in rest:  # servers that keep objects in folders take it for one '/', and we do not
            raise ValueError("it must not contain '//'")
        if scheme == "s3" and "?" in rest:  # what is pasted with one is signed, and everybody would read it
            raise ValueError("it must not contain '?': name the folder, and credentials by a profile")
        return uri


class ModelSpec(Spec):
    """A model to be uploaded (S3, table 5-1)."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: ModelName
    base_model: Annotated[str, Field(min_length=1, max_length=128)]
    """A base model of the catalogue."""
    description: Annotated[Line, Field(max_length=100)] = ""
    source: Source | None = None
    """None: the weights that the operator recommends for the base model."""
    precision: Precision = "BF16"
    mode: Literal["copy", "reference"] = "copy"
    """`reference` leaves the files where they are, which must be in the platform's own object store."""
    validation: Annotated[bool, Field(alias="validate")] = True
