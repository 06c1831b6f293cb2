"""The platform's objects in S3."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from app.store.file_store import arriving
from app.store.object_store import OnBytes, PartUpload, StoredObject, check_name, check_prefix, check_range
from app.store.s3 import TRANSFER, Refusal, as_prefix, client_for, code_of, explained, read_body


class S3Store:
    """Objects in a bucket, under a prefix. Credentials come from where AWS's own tools look for them.

    Can be pickled: another process makes a client, and finds credentials, of its own.
    """

    def __init__(
        self, bucket: str, prefix: str, *, endpoint_url: str | None, region: str | None, addressing_style: str
    ) -> None:
        self._again = partial(
            S3Store, bucket, prefix, endpoint_url=endpoint_url, region=region, addressing_style=addressing_style
        )
        self._bucket = bucket
        self._prefix = as_prefix(prefix)
        self._client = client_for(None, endpoint_url, region, addressing_style, attempts=5, read_timeout_s=60)

    def __reduce__(self) -> tuple[Callable[[], "S3Store"], tuple[()]]:
        return self._again, ()

    def list(self, prefix: str) -> Iterator[StoredObject]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + check_prefix(prefix)
        )
        with explained(prefix):
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
        with explained(name):
            try:
                return read_body(self._client, asked)[:length]
            except Refusal as refusal:
                if code_of(refusal) == "InvalidRange":
                    return b""
                raise

    def write(self, name: str, data: bytes) -> None:
        with explained(name):
            self._client.put_object(**self._at(name), Body=data)

    def upload(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        with explained(name):
            self._client.upload_file(str(path), **self._at(name), Callback=on_bytes, Config=TRANSFER)

    def open_upload(self, name: str, size_bytes: int, part_bytes: int) -> PartUpload:
        at = self._at(name)
        with explained(name):
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
        with explained(prefix):
            found = self._uploads(self._prefix + check_prefix(prefix))
        for upload in found:
            yield StoredObject(upload["Key"].removeprefix(self._prefix), 0, upload["Initiated"])

    def drop_uploads(self, prefix: str) -> None:
        with explained(prefix):
            for upload in self._uploads(self._prefix + check_prefix(prefix)):
                self._abort(upload)

    def download(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        with explained(name), arriving(path) as file:
            self._client.download_fileobj(**self._at(name), Fileobj=file, Callback=on_bytes, Config=TRANSFER)

    def delete(self, name: str) -> None:
        with explained(name):
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
        except Refusal as refusal:
            if code_of(refusal) != "NoSuchUpload":
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
        with explained(self._name):
            answer = self._client.upload_part(**self._at, UploadId=self._upload_id, PartNumber=number + 1, Body=data)
            self._etags[number + 1] = answer["ETag"]

    def finish(self) -> None:
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in sorted(self._etags.items())]
        with explained(self._name):
            try:
                self._client.complete_multipart_upload(
                    **self._at, UploadId=self._upload_id, MultipartUpload={"Parts": parts}
                )
            except Refusal as refusal:
                # Asked twice, because the first answer was lost, it has forgotten the upload: the object must be there.
                if code_of(refusal) != "NoSuchUpload":
                    raise
                if self._client.head_object(**self._at)["ContentLength"] != self._size_bytes:
                    raise
