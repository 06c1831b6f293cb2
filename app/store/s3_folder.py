"""A folder of weights in somebody's bucket, to be read."""

from typing import Any

from app.store.folders import MAX_FILES, FolderFile, RefusedEntry, SourceChanged, is_hidden, plain_name
from app.store.object_store import StoreError, check_range
from app.store.s3 import MISSING_CODES, Refusal, as_prefix, client_for, code_of, explained, read_body

_CHANGED_CODES = {*MISSING_CODES, "412", "PreconditionFailed", "416", "InvalidRange"}


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
        with explained(self._prefix, "source"):
            for entry in (entry for page in pages for entry in page.get("Contents", [])):
                seen += 1
                if seen > MAX_FILES:
                    raise RefusedEntry(".", f"a folder of more than {MAX_FILES:,} files")
                name = entry["Key"].removeprefix(self._prefix)
                if not name or name.endswith("/"):  # consoles mark folders so
                    continue
                if not is_hidden(plain_name(name)):
                    found.append(FolderFile(name, entry["Size"], entry["ETag"]))
            if not seen:
                self._explain_nothing()
        return sorted(found, key=lambda file: file.name)

    def find(self, name: str) -> FolderFile:
        """One file by its name. Raises RefusedEntry for a name that files do not have, StoreError for no such file."""
        with explained(plain_name(name), "source"):
            found = self._client.head_object(Bucket=self._bucket, Key=self._prefix + name)
        return FolderFile(name, found["ContentLength"], found["ETag"])

    def read(self, file: FolderFile, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        end = file.size_bytes if length is None else min(start + length, file.size_bytes)
        if start >= end:
            return b""

        def check(answer: dict[str, Any]) -> None:
            if answer.get("ETag") != file.etag:  # not every server heeds If-Match
                raise SourceChanged(file.name)
            came = answer.get("ContentLength")
            if came != end - start:  # one that knows no ranges would send all of it
                raise StoreError(f"source: {came} bytes came where {end - start} were asked for")

        asked = {
            "Bucket": self._bucket,
            "Key": self._prefix + file.name,
            "IfMatch": file.etag,
            "Range": f"bytes={start}-{end - 1}",
        }
        with explained(file.name, "source"):
            try:
                return read_body(self._client, asked, check)
            except Refusal as refusal:
                if code_of(refusal) in _CHANGED_CODES:
                    raise SourceChanged(file.name) from None
                raise

    def _explain_nothing(self) -> None:
        key = self._prefix.rstrip("/")
        if key:
            try:
                self._client.head_object(Bucket=self._bucket, Key=key)
            except Refusal as refusal:
                if code_of(refusal) not in MISSING_CODES:
                    raise
            else:
                raise RefusedEntry(key.rpartition("/")[2], "a single object; name the folder that holds it")
        raise StoreError(f"source: there is nothing in this folder: {self._prefix!r}")


def open_s3_folder(
    bucket: str,
    folder: str,
    *,
    endpoint_url: str | None,
    region: str | None,
    addressing_style: str,
    profile: str | None,
) -> S3Folder:
    """A folder of any bucket. Raises StoreError for a profile that AWS's shared configuration does not have."""
    prefix = as_prefix(folder)
    with explained(prefix, "source"):
        client = client_for(profile, endpoint_url, region, addressing_style, attempts=3, read_timeout_s=20)
    return S3Folder(client, bucket, prefix)
