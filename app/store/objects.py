"""Objects by name: weights, artefacts, snapshots. In a folder (file://DIR) or in S3 (s3://BUCKET/PREFIX)."""

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app.settings import Settings

OnBytes = Callable[[int], None]
"""Told how many bytes have just moved, perhaps from another thread; S3 takes back what it must send again."""

INCOMING = ".incoming"
"""Where FileStore keeps what is half written; no object's name begins with it."""

_CHUNK_BYTES = 4 << 20
_PART_BYTES = 16 << 20
_ABANDONED_S = 24 * 3600
_S3_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")
_MISSING_CODES = {"404", "NoSuchKey", "NotFound"}


class StoreError(OSError):
    """The object store failed. The message names the object and the failure, never a credential."""


class ObjectMissing(StoreError):
    """There is no object of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no such object: {self.name}"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One line of a listing."""

    name: str
    size_bytes: int


class ObjectStore(Protocol):
    """Objects by name; a name is '/'-separated and relative (see check_name, which every method applies).

    Whole objects appear at once: a reader sees the old bytes or the new ones. Trouble is an OSError.
    """

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The objects whose names begin with `prefix` (which need not end at a '/'), sorted by name."""

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """At most `length` bytes from `start`; fewer where the object ends. Raises ObjectMissing."""

    def write(self, name: str, data: bytes) -> None:
        """Create or replace the object."""

    def upload(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        """Create or replace the object from a file, in bounded memory."""

    def download(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        """Create or replace the file `path`, and its folder, in bounded memory. Raises ObjectMissing."""

    def delete(self, name: str) -> None:
        """Remove the object; fine when there is none."""

    def local_path(self, name: str) -> Path | None:
        """The object's own file, to be read only; None when it has none on this machine."""


def check_name(name: str) -> str:
    """The name, if it is one. Raises ValueError: absolute, '.' or '..', an empty part, a backslash, NUL, too long."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or parts[0] == INCOMING or "\\" in name or "\0" in name:
        raise ValueError(f"not an object name: {name!r}")
    if len(name.encode()) > 1024:  # S3's limit; encode() also refuses what is not Unicode
        raise ValueError("an object name takes at most 1024 bytes")
    return name


def open_store(settings: Settings) -> ObjectStore:
    """The store that the settings name. Raises ValueError for an address of another form."""
    address = settings.objects
    if address.startswith("file:///"):
        return FileStore(Path(address.removeprefix("file://")))
    if found := _S3_ADDRESS.fullmatch(address):
        return S3Store(
            found[1],
            found[2] or "",
            endpoint_url=settings.s3_endpoint_url,
            region=settings.s3_region,
            addressing_style=settings.s3_addressing_style,
        )
    # The address is not repeated: people put credentials into addresses.
    raise ValueError("the object store's address must be file:///FOLDER or s3://BUCKET/PREFIX")


class FileStore:
    """Objects as files under one folder. A name cannot be both an object and a folder of others."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def list(self, prefix: str) -> Iterator[StoredObject]:
        folder = _check_prefix(prefix).rpartition("/")[0]
        for found in self._walk(folder):
            if found.name.startswith(prefix):
                yield found

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        _check_range(start, length)
        with self._reading(name) as file:
            file.seek(start)
            there = max(os.fstat(file.fileno()).st_size - start, 0)  # read() would make room for all it is asked for
            return file.read(there if length is None else min(length, there))

    def write(self, name: str, data: bytes) -> None:
        with self._writing(name) as file:
            file.write(data)

    def upload(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        with path.open("rb") as source, self._writing(name) as target:
            _copy(source, target, on_bytes)

    def download(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        with self._reading(name) as source, _arriving(path) as target:
            _copy(source, target, on_bytes)

    def delete(self, name: str) -> None:
        path = self._path(name)
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            path.unlink()
        with suppress(OSError):  # up to the first folder that still holds something
            for folder in path.relative_to(self._root).parents[:-1]:
                (self._root / folder).rmdir()

    def local_path(self, name: str) -> Path | None:
        path = self._path(name)
        return path if path.is_file() else None

    def _path(self, name: str) -> Path:
        return self._root / check_name(name)

    def _walk(self, folder: str) -> Iterator[StoredObject]:
        try:
            with os.scandir(self._root / folder) as scan:
                entries = [entry for entry in scan if folder or entry.name != INCOMING]
        except (FileNotFoundError, NotADirectoryError):
            return
        # '/' counts in a name's order: 'a-b' comes before 'a/b', and 'a/b' before 'a0'.
        entries.sort(key=lambda entry: f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name)
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(name)
            elif entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):  # deleted since
                    yield StoredObject(name, entry.stat(follow_symlinks=False).st_size)

    @contextmanager
    def _reading(self, name: str) -> Iterator[BinaryIO]:
        try:
            file = self._path(name).open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectMissing(name) from None
        with file:
            yield file

    @contextmanager
    def _writing(self, name: str) -> Iterator[BinaryIO]:
        path, incoming = self._path(name), self._root / INCOMING
        incoming.mkdir(parents=True, exist_ok=True)
        _sweep(incoming)
        with _replacing(path, incoming / secrets.token_hex(8)) as file:
            yield file


class S3Store:
    """Objects in a bucket, under a prefix. Credentials come from where AWS's own tools look for them."""

    def __init__(
        self, bucket: str, prefix: str, *, endpoint_url: str | None, region: str | None, addressing_style: str
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._client: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region,
            config=Config(
                connect_timeout=5,
                read_timeout=60,
                retries={"mode": "standard", "total_max_attempts": 5},
                max_pool_connections=16,
                s3={"addressing_style": addressing_style},
                # Many S3 servers do not know the newer checksums, and manifests carry sha256.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        self._transfer = TransferConfig(
            multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=8
        )

    def list(self, prefix: str) -> Iterator[StoredObject]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + _check_prefix(prefix)
        )
        with self._explained(prefix):
            found = [
                StoredObject(entry["Key"].removeprefix(self._prefix), entry["Size"])
                for page in pages
                for entry in page.get("Contents", [])
                if not entry["Key"].endswith("/")  # consoles mark folders so
            ]
        # AWS sorts; servers that keep objects in folders list folder by folder.
        yield from sorted(found, key=lambda stored: stored.name)

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        _check_range(start, length)
        # Zero bytes are no valid range; one is read and dropped, so that a missing object still shows.
        end = "" if length is None else start + max(length, 1) - 1
        whole = start == 0 and length is None
        with self._explained(name):
            try:
                answer = self._client.get_object(
                    **self._at(name), **({} if whole else {"Range": f"bytes={start}-{end}"})
                )
                return bytes(answer["Body"].read()[:length])
            except ClientError as error:
                if error.response["Error"]["Code"] == "InvalidRange":
                    return b""
                raise

    def write(self, name: str, data: bytes) -> None:
        with self._explained(name):
            self._client.put_object(**self._at(name), Body=data)

    def upload(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        with self._explained(name):
            self._client.upload_file(str(path), **self._at(name), Callback=on_bytes, Config=self._transfer)

    def download(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        with self._explained(name), _arriving(path) as file:
            self._client.download_fileobj(**self._at(name), Fileobj=file, Callback=on_bytes, Config=self._transfer)

    def delete(self, name: str) -> None:
        with self._explained(name):
            self._client.delete_object(**self._at(name))

    def local_path(self, name: str) -> Path | None:
        check_name(name)
        return None

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + check_name(name)}

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Say what failed by its code alone: servers' own texts repeat key IDs and what was signed."""
        try:
            yield
        except (Boto3Error, BotoCoreError, ClientError) as error:
            cause = error.__context__ if isinstance(error, Boto3Error) else error
            code = cause.response["Error"]["Code"] if isinstance(cause, ClientError) else type(cause or error).__name__
            if code in _MISSING_CODES:
                raise ObjectMissing(name) from None
            raise StoreError(f"object store: {code}, at {name!r}") from None


def _check_prefix(prefix: str) -> str:
    check_name(f"{prefix}x")  # a prefix is what a name can begin with
    return prefix


def _check_range(start: int, length: int | None) -> None:
    if start < 0 or (length is not None and length < 0):
        raise ValueError("a range cannot be negative")


def _copy(source: BinaryIO, target: BinaryIO, on_bytes: OnBytes | None) -> None:
    while chunk := source.read(_CHUNK_BYTES):
        target.write(chunk)
        if on_bytes:
            on_bytes(len(chunk))


@contextmanager
def _arriving(path: Path) -> Iterator[BinaryIO]:
    """A file that becomes `path` when the block ends well; until then it lies beside it, hidden."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path, path.with_name(f".{secrets.token_hex(8)}.part")) as file:
        yield file


@contextmanager
def _replacing(path: Path, temporary: Path) -> Iterator[BinaryIO]:
    """A new file at `temporary` that is moved to `path`, safe against power loss, when the block ends well."""
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _move(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _move(source: Path, path: Path) -> None:
    for attempts_left in reversed(range(10)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            source.replace(path)
            break
        except (FileNotFoundError, FileExistsError):
            # A delete beside us has just removed the folder, empty as it was; mkdir says "exists" when that happens
            # between its two looks.
            if not attempts_left:
                raise
    with suppress(FileNotFoundError):  # deleted since
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _sweep(incoming: Path) -> None:
    """Remove what writers that died have left behind."""
    for stray in incoming.iterdir():
        with suppress(FileNotFoundError):
            if stray.stat().st_mtime < time.time() - _ABANDONED_S:
                stray.unlink()
