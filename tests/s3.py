"""A real S3 server for tests, and what stands before it to spoil its answers."""

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.retries.standard import ExponentialBackoff

from app.bench.s3_server import S3_KEY, S3_SECRET, NotInstalled, s3_credentials, s3_server, s3_settings
from app.settings import Settings
from app.store.object_store import ObjectStore
from app.store.objects import open_store
from tests.store.faulting_proxy import FaultingProxy


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The address of an S3 server that makes buckets as they are named, and knows one key."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(s3_server())
        except NotInstalled as missing:
            pytest.skip(str(missing))
        with s3_credentials():
            open_s3(url).write("ready", b"")  # some tests begin with reading, which makes no bucket
        yield url


def set_s3_credentials(patch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    patch.setenv("AWS_ACCESS_KEY_ID", S3_KEY)
    patch.setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET)
    patch.setenv("NO_PROXY", "127.0.0.1")


def open_s3(url: str) -> ObjectStore:
    """A prefix of the tests' bucket that nobody else has."""
    return open_store(s3_settings(url, f"s3://modelunit-tests/{uuid.uuid4().hex}"))


@dataclass(frozen=True)
class Bucket:
    """A prefix of the tests' bucket that nobody else has: `weights` for a source, `objects` for a store."""

    url: str
    prefix: str

    def uri(self, folder: str = "weights") -> str:
        return f"s3://modelunit-tests/{self.prefix}/{folder}"

    def settings(self, endpoint_url: str | None = None) -> Settings:
        return s3_settings(endpoint_url or self.url, self.uri("objects"))

    def fill(self, files: Mapping[str, bytes], folder: str = "weights") -> None:
        settings = self.settings().model_copy(update={"object_store": self.uri(folder)})
        store = open_store(settings)
        for name, data in files.items():
            store.write(name, data)

    def client(self) -> Any:
        """boto3's own, for what no store of ours does."""
        return boto3.session.Session().client(
            "s3", endpoint_url=self.url, config=Config(s3={"addressing_style": "path"})
        )


@pytest.fixture
def bucket(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    set_s3_credentials(monkeypatch)
    return Bucket(s3_url, uuid.uuid4().hex)


@pytest.fixture
def proxy(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultingProxy]:
    """Between a client and the S3 server; clients in this process ask again without the pauses that boto3 makes."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.01)
    proxy = FaultingProxy(s3_url)
    yield proxy
    proxy.close()
