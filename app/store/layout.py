"""Where things lie in the object store, and what makes a version whole: its manifest, written last."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.core.errors import Conflict
from app.core.specs import Precision
from app.store.object_store import ObjectMissing, ObjectStore, OnBytes, StoreError, check_name, check_prefix

MODELS = "models/"
JOBS = "jobs/"
LOGS = "logs/"
MANIFEST = "manifest.json"
JOB_PROGRESS, JOB_CURVE, JOB_STOP = "progress.json", "curve.json", "stop.json"
"""How far a job is, what its training has gone through, and (by being there) that it is to stop at a checkpoint."""
HELD_MANIFEST = "held-manifest.json"
"""With a job whose result is there but not published yet."""
SNAPSHOT = "routing/table.json"
"""The newest routing table, for routers that start without the control plane."""

log = logging.getLogger(__name__)


class ManifestFile(BaseModel):
    """One file of a version, by its name under the version's prefix."""

    model_config = ConfigDict(frozen=True)

    name: Annotated[str, AfterValidator(check_name)]
    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """All files of a version. Weights without a manifest do not exist; with one they do not change."""

    model_config = ConfigDict(frozen=True)

    model_id: str
    name: str
    base_model: str
    precision: Precision
    files: Annotated[tuple[ManifestFile, ...], Field(min_length=1)]
    files_prefix: str | None = None
    """Where the files lie when that is a folder of the user's own, which is read there and never written."""

    @model_validator(mode="after")
    def _sound(self) -> "Manifest":
        names = {file.name for file in self.files}
        if len(names) < len(self.files) or MANIFEST in names:
            raise ValueError("every file is named once, and the manifest is not one of them")
        if self.files_prefix is not None and not check_prefix(self.files_prefix).endswith("/"):
            raise ValueError("files_prefix ends with '/'")
        return self

    @property
    def prefix(self) -> str:
        """Where it lies, and its files too unless `files_prefix` says otherwise."""
        return version_prefix(self.model_id, self.precision)

    @property
    def files_at(self) -> str:
        """The prefix of its files' names."""
        return self.files_prefix or self.prefix

    @property
    def digest(self) -> str:
        """Equal for the same files, whatever the model is called: sha256 over sorted names, sizes and hashes."""
        content = sorted((file.name, file.size_bytes, file.sha256) for file in self.files)
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

    @property
    def total_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def job_object(job_id: str, name: str) -> str:
    """One of the files by which the control plane and a job process talk: spec, progress, outcome, journal."""
    return f"{JOBS}{job_id}/{name}"


_CHECKPOINT = re.compile(rf"{JOBS}[^/]+/checkpoints/(\d+)/{re.escape(MANIFEST)}", re.ASCII)


def newest_checkpoint(store: ObjectStore, job_id: str) -> int:
    """The iteration of the newest complete checkpoint of a job; 0: there is none."""
    found = (_CHECKPOINT.fullmatch(stored.name) for stored in store.list(job_object(job_id, "checkpoints/")))
    return max((int(match[1]) for match in found if match), default=0)


class LogObject(NamedTuple):
    """A piece of a unit's log: some of the lines that it wrote within one hour."""

    endpoint_id: str
    hour: str
    """`YYYYMMDDTHH` in UTC; `log_hour` makes it."""
    unit: str
    number: int
    """From 0 in each hour."""

    @property
    def name(self) -> str:
        """Its object. All of a day's, and all of an hour's, have a prefix of their own."""
        return f"{log_prefix(self.endpoint_id)}{self.hour}-{self.unit}-{self.number:05}.log"


_LOG_NAME = re.compile(rf"{LOGS}([A-Za-z0-9-]{{1,64}})/(\d{{8}}T\d\d)-([A-Za-z0-9]{{1,32}})-(\d{{1,6}})\.log", re.ASCII)


def log_prefix(endpoint_id: str) -> str:
    """The prefix of an endpoint's logs. Raises ValueError for an ID that is not one part of a name."""
    if "/" in check_name(endpoint_id):
        raise ValueError(f"not an endpoint ID: {endpoint_id!r}")
    return f"{LOGS}{endpoint_id}/"


def log_hour(moment: datetime) -> str:
    """The hour that a moment is in, as names of logs have it; hours sort as times do."""
    return f"{moment.astimezone(UTC):%Y%m%dT%H}"


def parse_log_name(name: str) -> LogObject | None:
    """What an object below LOGS is; None for what is not a log."""
    found = _LOG_NAME.fullmatch(name)
    return LogObject(found[1], found[2], found[3], int(found[4])) if found else None


def version_prefix(model_id: str, precision: Precision) -> str:
    """The prefix of a version's files. Raises ValueError for an ID that is not one part of a name."""
    if "/" in check_name(model_id):
        raise ValueError(f"not a model ID: {model_id!r}")
    return f"{MODELS}{model_id}/{precision}/"


def read_manifest(store: ObjectStore, prefix: str) -> Manifest | None:
    """The manifest under a prefix, or None. Raises ValueError, with the object's name, when it is broken."""
    name = prefix + MANIFEST
    try:
        return Manifest.model_validate_json(store.read(name))
    except ObjectMissing:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{name}: {where + ': ' if where else ''}{first['msg']}") from None


def write_manifest(store: ObjectStore, manifest: Manifest) -> None:
    """Publish: from here on the version exists."""
    store.write(manifest.prefix + MANIFEST, manifest.model_dump_json(indent=1, exclude_none=True).encode())


def find_manifests(store: ObjectStore) -> Iterator[Manifest]:
    """The manifests of all versions; one that is broken, or lies under another's prefix, is logged and passed over."""
    for stored in store.list(MODELS):
        prefix, _, last = stored.name.rpartition("/")
        if last != MANIFEST or prefix.count("/") != 2:
            continue
        try:
            manifest = read_manifest(store, f"{prefix}/")
            if manifest is not None and manifest.prefix != f"{prefix}/":
                raise ValueError(f"{stored.name}: it describes {manifest.prefix}")
        except ValueError as error:
            log.warning("manifest passed over: %s", error)
            continue
        if manifest is not None:
            yield manifest


def publish_folder(
    store: ObjectStore,
    folder: Path,
    *,
    model_id: str,
    name: str,
    base_model: str,
    precision: Precision,
    on_bytes: OnBytes | None = None,
) -> Manifest:
    """Put a folder's files, subfolders included, into the store as a version, and its manifest last.

    Hidden files and a manifest of the folder's own are left out. Run again after a crash, it finishes; objects
    under the prefix that the manifest does not name are removed. Raises Conflict when other files are published
    there, ValueError for an empty folder, a link out of it or to a folder, or anything else that is not a
    file, StoreError for a file that changes meanwhile.
    """
    manifest = put_folder(
        store, folder, model_id=model_id, name=name, base_model=base_model, precision=precision, on_bytes=on_bytes
    )
    if read_manifest(store, manifest.prefix) != manifest:
        write_manifest(store, manifest)
    return manifest


def put_folder(
    store: ObjectStore,
    folder: Path,
    *,
    model_id: str,
    name: str,
    base_model: str,
    precision: Precision,
    on_bytes: OnBytes | None = None,
) -> Manifest:
    """Like `publish_folder`, without the manifest, which is returned: the version exists once that is written."""
    sources = dict(_files(folder))
    files = tuple(_describe(name, path) for name, path in sources.items())
    manifest = Manifest(model_id=model_id, name=name, base_model=base_model, precision=precision, files=files)
    prefix = manifest.prefix

    published = read_manifest(store, prefix)
    if published is not None and published.digest != manifest.digest:
        raise Conflict(f"Other weights are already published as {precision} of model {model_id}.")

    there = sizes(store, prefix)
    for file in files:
        # Only a manifest vouches for what is there: without one, it may be left from another attempt.
        if published is None or there.get(prefix + file.name) != file.size_bytes:
            store.upload(prefix + file.name, sources[file.name], on_bytes)

    there = sizes(store, prefix)
    for file in files:
        if there.pop(prefix + file.name, None) != file.size_bytes:
            raise StoreError(f"{file.name} changed while it was being published, or did not arrive whole")
    for stray in there.keys() - {prefix + MANIFEST}:
        store.delete(stray)
    return manifest


def put_files(store: ObjectStore, prefix: str, folder: Path) -> None:
    """Put a folder's files, subfolders included and hidden ones left out, under a prefix. Raises as `put_folder`."""
    for name, path in _files(folder):
        store.upload(prefix + name, path)


def sizes(store: ObjectStore, prefix: str) -> dict[str, int]:
    """The sizes in bytes of all objects under a prefix, by their names."""
    return {stored.name: stored.size_bytes for stored in store.list(prefix)}


def _describe(name: str, path: Path) -> ManifestFile:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return ManifestFile(name=name, size_bytes=file.tell(), sha256=sha256)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and real paths of the files to publish, sorted."""
    root = folder.resolve(strict=True)
    for parent, folders, names in os.walk(root, onerror=_fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # Linked folders are listed but not walked: passing them over in silence would lose weights.
        for path in (Path(parent, name) for name in [*folders, *sorted(names)]):
            name = path.relative_to(root).as_posix()
            if path.name.startswith(".") or name == MANIFEST or (path.is_dir() and not path.is_symlink()):
                continue
            target = path.resolve()
            if not target.is_relative_to(root) or not target.is_file():
                raise ValueError(f"{name} is neither a file nor a link to one in the same folder")
            yield name, target


def _fail(error: OSError) -> None:
    raise error
