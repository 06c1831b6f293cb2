"""The environment, read once into a frozen object. Importing this module reads nothing."""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

PREFIX = "MODELUNIT_"

_SEPARATORS = {"file_roots": ":", "source_endpoints": " ", "source_profiles": " ", "write_roots": " "}


class Settings(BaseModel):
    """Everything that MODELUNIT_* variables say."""

    model_config = ConfigDict(frozen=True)

    home: Path = Path("~/.modelunit")
    http_host: str = "127.0.0.1"
    http_port: int = Field(8000, ge=1, le=65535)
    database_url: str | None = None
    object_store: str | None = None
    s3_endpoint_url: str | None = None
    s3_region: str | None = None
    s3_addressing_style: str = Field("auto", pattern="^(auto|path|virtual)$")
    file_roots: tuple[Path, ...] = ()
    """Folders, separated by ':', below which keys of no platform admin may name file:// sources; their real paths."""
    source_endpoints: tuple[str, ...] = ()
    """S3 servers, separated by spaces, that such keys may name beside the platform's own."""
    source_profiles: tuple[str, ...] = ()
    """Profiles of the shared AWS configuration, separated by spaces, whose credentials such keys may use."""
    write_roots: tuple[str, ...] = ()
    """`file:///FOLDER` and `s3://BUCKET/FOLDER`, separated by spaces: such keys may have files written to the folder of
    their workspace's ID below these."""
    cache_bytes: int | None = Field(None, ge=1)
    """What the weights cached on each node may take together; without it, a fifth of the disk stays free."""
    admin_key: str | None = Field(None, repr=False)
    catalog: Path | None = None
    """The operator's own catalogue entries, a YAML file; HOME/catalog.yaml when that exists."""
    serve_proxy_url: str = "http://127.0.0.1:8001"
    """Serve's own proxy on this node, behind which the control plane is; `up` sets it."""

    @field_validator("file_roots", "source_endpoints", "source_profiles", "write_roots", mode="before")
    @classmethod
    def _listed(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part for part in value.split(_SEPARATORS[str(info.field_name)]) if part)

    @field_validator("file_roots")
    @classmethod
    def _absolute(cls, roots: tuple[Path, ...]) -> tuple[Path, ...]:
        if not all(root.is_absolute() for root in roots):
            raise ValueError("every folder's path begins with '/'")
        return roots

    @field_validator("write_roots")
    @classmethod
    def _addresses(cls, roots: tuple[str, ...]) -> tuple[str, ...]:
        if not all(root.startswith(("file:///", "s3://")) for root in roots):
            raise ValueError("every one begins with file:/// or s3://")
        return roots

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the variables; an empty one counts as unset. Raises ValueError that names the variable."""
        given = {name: environ.get(PREFIX + name.upper()) for name in cls.model_fields}
        try:
            settings = cls.model_validate({name: value for name, value in given.items() if value})
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{PREFIX}{str(first['loc'][0]).upper()}: {first['msg']}") from None
        real: dict[str, object] = {
            "home": settings.home.expanduser().resolve(),
            "file_roots": tuple(root.resolve() for root in settings.file_roots),
            "write_roots": tuple(_real(root) for root in settings.write_roots),
        }
        if settings.object_store and settings.object_store.startswith("file:///"):
            # Sources are read without following links, also those that lie in the store.
            real["object_store"] = _real(settings.object_store)
        return settings.model_copy(update=real)

    def to_environ(self, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """`environ` with variables that say just this, for the processes we start.

        Those of the caller's own platform are left out: a benchmark or a test must not reach its registry.
        """
        others = {name: value for name, value in environ.items() if not name.startswith(PREFIX)}
        values = self.model_dump(exclude_none=True)
        return others | {PREFIX + name.upper(): _as_text(name, value) for name, value in values.items()}

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the registry."""
        return self.database_url or f"sqlite:///{self.home / 'registry.db'}"

    @property
    def objects(self) -> str:
        """Where weights and artefacts live: file:// or s3://bucket/prefix."""
        return self.object_store or f"file://{self.home / 'objects'}"

    @property
    def catalog_file(self) -> Path | None:
        """The operator's own catalogue entries, if there are any."""
        usual = self.home / "catalog.yaml"
        return self.catalog or (usual if usual.exists() else None)

    @property
    def run_dir(self) -> Path:
        """Sockets and process records; meaningless once the processes are gone."""
        return self.home / "run"

    @property
    def usage_dir(self) -> Path:
        """What the routers of this node have counted and the control plane does not have yet."""
        return self.home / "usage"

    @property
    def log_dir(self) -> Path:
        """Logs of what is not a Ray process."""
        return self.home / "logs"


def _real(address: str) -> str:
    """An address of a local folder without links on its way."""
    path = address.removeprefix("file://")
    return address if path == address else f"file://{Path(path).resolve()}"


def _as_text(name: str, value: object) -> str:
    return _SEPARATORS[name].join(map(str, value)) if isinstance(value, tuple) else str(value)
