"""Objects in S3 (s3://BUCKET/PREFIX): the platform's store, and folders of other buckets. `open_store` chooses."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as NotConnected
from botocore.parsers import ResponseParserError

from app.settings import Settings
from app.store.file_store import FileStore, arriving
from app.store.folders import MAX_FILES, FolderFile, RefusedEntry, SourceChanged, is_hidden, plain_name
from app.store.object_store import (
    ObjectMissing,
    ObjectStore,
    OnBytes,
    PartUpload,
    StoredObject,
    StoreError,
    StoreUnavailable,
    check_name,
    check_prefix,
    check_range,
)

_PART_BYTES = 16 << 20
_CONNECTIONS = 16
_BODY_ATTEMPTS = 3
_S3_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")
_MISSING_CODES = {"404", "NoSuchKey", "NotFound"}
_CHANGED_CODES = {*_MISSING_CODES, "412", "PreconditionFailed", "416", "InvalidRange"}
_PASSING_CODES = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded"}
_PASSING_ERRORS = (NotConnected, HTTPClientError, IncompleteReadError, ResponseParserError)
"""Nothing came, or something came that was cut off."""


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


class S3Store:
    """Objects in a bucket, under a prefix. Credentials come from where AWS's own tools look for them."""

    def __init__(
        self, bucket: str, prefix: str, *, endpoint_url: str | None, region: str | None, addressing_style: str
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._client = _client(None, endpoint_url, region, addressing_style, attempts=5, read_timeout_s=60)
        self._transfer = TransferConfig(
            multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=8
        )

    def list(self, prefix: str) -> Iterator[StoredObject]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + check_prefix(prefix)
        )
        with _explained(prefix):
            found = [
                StoredObject(entry["Key"].removeprefix(self._prefix), entry["Size"], entry["LastModified"])
                for page in pages
                for entry in page.get("Contents", [])
                if not entry["Key"].endswith("/")  # consoles mark folders so
            ]
        # AWS sorts; servers that keep objects in folders list folder by folder.
        yield from sorted(found, key=lambda stored: stored.name)

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        # Zero bytes are no valid range; one is read and dropped, so that a missing object still shows.
        end = "" if length is None else start + max(length, 1) - 1
        whole = start == 0 and length is None
        asked = {**self._at(name), **({} if whole else {"Range": f"bytes={start}-{end}"})}
        with _explained(name):
            try:
                return _body(self._client, asked)[:length]
            except ClientError as error:
                if error.response["Error"]["Code"] == "InvalidRange":
                    return b""
                raise

    def write(self, name: str, data: bytes) -> None:
        with _explained(name):
            self._client.put_object(**self._at(name), Body=data)

    def upload(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        with _explained(name):
            self._client.upload_file(str(path), **self._at(name), Callback=on_bytes, Config=self._transfer)

    def open_upload(self, name: str, size_bytes: int, part_bytes: int) -> PartUpload:
        at = self._at(name)
        with _explained(name):
            found = [upload for upload in self._uploads(at["Key"]) if upload["Key"] == at["Key"]]
            for other in found[1:]:  # two processes were at it; each part is checked, so either's will do
                self._abort(other)
            if not found:
                begun = self._client.create_multipart_upload(**at)["UploadId"]
                return S3PartUpload(self._client, name, at, begun, size_bytes, {})
            upload_id = found[0]["UploadId"]
            pages = self._client.get_paginator("list_parts").paginate(**at, UploadId=upload_id)
            parts = {part["PartNumber"]: part for page in pages for part in page.get("Parts", [])}
            return S3PartUpload(self._client, name, at, upload_id, size_bytes, parts)

    def unfinished(self, prefix: str) -> Iterator[StoredObject]:
        with _explained(prefix):
            found = self._uploads(self._prefix + check_prefix(prefix))
        for upload in found:
            yield StoredObject(upload["Key"].removeprefix(self._prefix), 0, upload["Initiated"])

    def drop_uploads(self, prefix: str) -> None:
        with _explained(prefix):
            for upload in self._uploads(self._prefix + check_prefix(prefix)):
                self._abort(upload)

    def download(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        with _explained(name), arriving(path) as file:
            self._client.download_fileobj(**self._at(name), Fileobj=file, Callback=on_bytes, Config=self._transfer)

    def delete(self, name: str) -> None:
        with _explained(name):
            self._client.delete_object(**self._at(name))

    def local_path(self, name: str) -> Path | None:
        check_name(name)
        return None

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + check_name(name)}

    def _uploads(self, key_prefix: str) -> Sequence[dict[str, Any]]:
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=key_prefix)
        return [upload for page in pages for upload in page.get("Uploads", []) if upload["Key"].startswith(key_prefix)]

    def _abort(self, upload: dict[str, Any]) -> None:
        try:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchUpload":
                raise


class S3PartUpload:
    """A multi-part upload; `listed` are the parts that the server says it has, by its own numbers."""

    def __init__(
        self,
        client: Any,
        name: str,
        at: dict[str, str],
        upload_id: str,
        size_bytes: int,
        listed: dict[int, dict[str, Any]],
    ) -> None:
        self._client = client
        self._name = name
        self._at = at
        self._upload_id = upload_id
        self._size_bytes = size_bytes
        self._listed = listed
        self._etags: dict[int, str] = {}

    def holds(self, number: int, data: bytes) -> bool:
        part = self._listed.get(number + 1)
        if part is None or part["Size"] != len(data):
            return False
        # An ETag that is no MD5 (some kinds of encryption) equals none, and the part is sent again.
        if part["ETag"].strip('"') != hashlib.md5(data, usedforsecurity=False).hexdigest():
            return False
        self._etags[number + 1] = part["ETag"]
        return True

    def send(self, number: int, data: bytes) -> None:
        with _explained(self._name):
            answer = self._client.upload_part(**self._at, UploadId=self._upload_id, PartNumber=number + 1, Body=data)
            self._etags[number + 1] = answer["ETag"]

    def finish(self) -> None:
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in sorted(self._etags.items())]
        with _explained(self._name):
            try:
                self._client.complete_multipart_upload(
                    **self._at, UploadId=self._upload_id, MultipartUpload={"Parts": parts}
                )
            except ClientError as error:
                # Asked twice, because the first answer was lost, it has forgotten the upload: the object must be there.
                if error.response["Error"]["Code"] != "NoSuchUpload":
                    raise
                if self._client.head_object(**self._at)["ContentLength"] != self._size_bytes:
                    raise


class S3Folder:
    """A folder of a bucket: all below its prefix, which may be "" or else ends with '/'."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def files(self) -> list[FolderFile]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        found: list[FolderFile] = []
        seen = 0
        with _explained(self._prefix, "source"):
            for entry in (entry for page in pages for entry in page.get("Contents", [])):
                seen += 1
                if seen > MAX_FILES:
                    raise RefusedEntry(".", f"a folder of more than {MAX_FILES:,} files")
                name = entry["Key"].removeprefix(self._prefix)
                if (
                    name and not name.endswith("/") and not is_hidden(plain_name(name))
                ):  # consoles mark folders with '/'
                    found.append(FolderFile(name, entry["Size"], entry["ETag"]))
            if not seen:
                self._explain_nothing()
        return sorted(found, key=lambda file: file.name)

    def read(self, file: FolderFile, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        end = file.size_bytes if length is None else min(start + length, file.size_bytes)
        if start >= end:
            return b""

        def check(answer: dict[str, Any]) -> None:
            if answer.get("ETag") != file.etag:  # not every server heeds If-Match
                raise SourceChanged(file.name)
            length = answer.get("ContentLength")
            if length != end - start:  # one that knows no ranges would send all of it
                raise StoreError(f"source: {length} bytes came where {end - start} were asked for")

        asked = {
            "Bucket": self._bucket,
            "Key": self._prefix + file.name,
            "IfMatch": file.etag,
            "Range": f"bytes={start}-{end - 1}",
        }
        with _explained(file.name, "source"):
            try:
                return _body(self._client, asked, check)
            except ClientError as error:
                if error.response["Error"]["Code"] in _CHANGED_CODES:
                    raise SourceChanged(file.name) from None
                raise

    def _explain_nothing(self) -> None:
        key = self._prefix.rstrip("/")
        if key:
            try:
                self._client.head_object(Bucket=self._bucket, Key=key)
            except ClientError as error:
                if error.response["Error"]["Code"] not in _MISSING_CODES:
                    raise
            else:
                raise RefusedEntry(key.rpartition("/")[2], "a single object; name the folder that holds it")
        raise StoreError(f"source: there is nothing in this folder: {self._prefix!r}")


def open_s3_folder(
    bucket: str,
    prefix: str,
    *,
    endpoint_url: str | None,
    region: str | None,
    addressing_style: str,
    profile: str | None,
) -> S3Folder:
    """A folder of any bucket. Raises StoreError for a profile that AWS's shared configuration does not have."""
    prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    with _explained(prefix, "source"):
        client = _client(profile, endpoint_url, region, addressing_style, attempts=3, read_timeout_s=20)
    return S3Folder(client, bucket, prefix)


def _client(
    profile: str | None,
    endpoint_url: str | None,
    region: str | None,
    addressing_style: str,
    *,
    attempts: int,
    read_timeout_s: float,
) -> Any:
    return boto3.session.Session(profile_name=profile).client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=region,
        config=Config(
            connect_timeout=5,
            read_timeout=read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=_CONNECTIONS,
            s3={"addressing_style": addressing_style},
            # Many S3 servers do not know the newer checksums, and manifests carry sha256.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _body(client: Any, asked: dict[str, str], check: Callable[[dict[str, Any]], None] = lambda answer: None) -> bytes:
    """What get_object answers, asked for again where it breaks off, which boto3 leaves to us; `check` sees it first."""
    attempts_left = _BODY_ATTEMPTS
    while True:
        attempts_left -= 1
        answer = client.get_object(**asked)
        with closing(answer["Body"]) as body:
            check(answer)
            try:
                return bytes(body.read())
            except _PASSING_ERRORS:
                if not attempts_left:
                    raise


@contextmanager
def _explained(name: str, who: str = "object store") -> Iterator[None]:
    """Say what failed by its code alone: servers' own texts repeat key IDs and what was signed."""
    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError, ResponseParserError) as error:
        cause = error.__context__ if isinstance(error, Boto3Error) else error
        if not isinstance(cause, ClientError):
            kind = StoreUnavailable if isinstance(cause, _PASSING_ERRORS) else StoreError
            raise kind(f"{who}: {type(cause or error).__name__}, at {name!r}") from None
        code = cause.response["Error"]["Code"]
        if code in _MISSING_CODES:
            raise ObjectMissing(name) from None
        status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        passing = status >= 500 or status == 429 or code in _PASSING_CODES
        raise (StoreUnavailable if passing else StoreError)(f"{who}: {code}, at {name!r}") from None
