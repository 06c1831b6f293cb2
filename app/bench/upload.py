"""Uploads: our import against plain boto3, the same files from one bucket of an S3 server to another."""

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from app.bench.s3_server import s3_credentials, s3_server, s3_settings
from app.core.model_specs import Source
from app.store.copying import PART_BYTES
from app.store.importing import CONCURRENCY, import_folder
from app.store.layout import MANIFEST, sizes, version_prefix
from app.store.objects import open_store
from app.store.sources import open_source

FILE_BYTES = 64 << 20

_SOURCE = "modelunit-source"
_PREFIX = version_prefix("bench", "BF16")
_WEIGHTS = [f"model-{number}.safetensors" for number in range(4)]
_SMALL = {"config.json": 1 << 10, "tokenizer_config.json": 50 << 10, "tokenizer.json": 2 << 20}
_FILES_AT_A_TIME = 2
"""Plain's. Ours takes parts in order, so that of files of four parts two are under way."""

Arm = Callable[[str, str], float]
"""Told the server's address and the bucket to copy to; returns the seconds that it took once it was connected."""


def measure_upload(rounds: int, file_bytes: int = FILE_BYTES) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """`upload_mib_per_s` of each round, ours and plain, after a round that warms both up.

    `file_bytes` is the size of each file of weights. Takes three times what all files take on the disk of TMPDIR.
    Raises NotInstalled, RuntimeError when the server does not start or not all arrives, StoreError.
    """
    files = {**_SMALL, **dict.fromkeys(_WEIGHTS, file_bytes)}
    mib = sum(files.values()) / (1 << 20)
    ours: list[float] = []
    plain: list[float] = []
    with s3_server() as url, s3_credentials():
        source = open_store(s3_settings(url, f"s3://{_SOURCE}"))
        for name, size_bytes in files.items():
            source.write(name, os.urandom(size_bytes))  # nothing that anybody could compress
        for number in range(rounds + 1):
            turns = [(_ours, ours), (_plain, plain)]
            for arm, taken in turns[:: 1 if number % 2 else -1]:
                took_s = _turn(arm, url, files)
                if number:
                    taken.append(mib / took_s)
    return {"upload_mib_per_s": ours}, {"upload_mib_per_s": plain}


def _turn(arm: Arm, url: str, files: dict[str, int]) -> float:
    """The seconds of one arm, into a bucket that is new, and is removed with all that has arrived."""
    bucket = f"modelunit-target-{time.monotonic_ns()}"
    target = open_store(s3_settings(url, f"s3://{bucket}"))
    target.write("begun", b"This makes the bucket, and room for it.")
    took_s = arm(url, bucket)
    arrived = sizes(target, _PREFIX)
    arrived.pop(_PREFIX + MANIFEST, None)
    if arrived != {_PREFIX + name: size_bytes for name, size_bytes in files.items()}:
        raise RuntimeError(f"not all of the files arrived: {arrived}")
    _client(url).delete_bucket(Bucket=bucket)
    return took_s


def _ours(url: str, bucket: str) -> float:
    settings = s3_settings(url, f"s3://{bucket}")
    folder, store = open_source(Source(uri=f"s3://{_SOURCE}"), settings), open_store(settings)
    started = time.monotonic()
    import_folder(
        folder, store, model_id="bench", name="bench", base_model="bench", precision="BF16",
        journal="journal.json", wanted=lambda file: True,
    )  # fmt: skip
    return time.monotonic() - started


def _plain(url: str, bucket: str) -> float:
    """Each file by way of the disk; as many parts under way at a time as ours has, with which it is at its best."""
    client = _client(url)
    transfer = TransferConfig(
        multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=CONCURRENCY // _FILES_AT_A_TIME
    )

    def copy(name: str) -> None:
        path = str(Path(folder, name))
        client.download_file(_SOURCE, name, path, Config=transfer)
        client.upload_file(path, bucket, _PREFIX + name, Config=transfer)

    with (
        tempfile.TemporaryDirectory(prefix="modelunit-upload-") as folder,
        ThreadPoolExecutor(_FILES_AT_A_TIME) as threads,
    ):
        started = time.monotonic()
        names = [entry["Key"] for entry in client.list_objects_v2(Bucket=_SOURCE)["Contents"]]
        for _ in threads.map(copy, names):
            pass
        return time.monotonic() - started


def _client(url: str) -> Any:
    """With our settings where they matter: boto3's own would also take a checksum of what it sends."""
    return boto3.session.Session().client(
        "s3",
        endpoint_url=url,
        config=Config(
            max_pool_connections=2 * CONCURRENCY,
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
