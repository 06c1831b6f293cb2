"""The validator's process for real, with deeds of our own in the place of a check; and once the real check."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.catalog.entries import CatalogEntry
from app.core.findings import Report
from app.core.job_specs import MachineMemory
from app.core.model_specs import Source
from app.weights import validator, validator_client
from app.weights.validator_client import SERVER, ValidationTask, validate_warm
from tests.fork_servers import WAIT_S, end_servers, servers, until
from tests.weights.validators import SECRET

WITH_DEEDS = "tests.weights.validators"
ROOT = Path(__file__).parents[2]


def task(deed: str, uri: str = "file:///nowhere", architecture: str = "LlamaForCausalLM") -> ValidationTask:
    entry = CatalogEntry(base_model=deed, series="Test", architectures=(architecture,))
    machines = (MachineMemory(name="gpu", memory_bytes=1 << 40),)
    return ValidationTask(source=Source(uri=uri), entry=entry, precision="BF16", machines=machines)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a validator with deeds, which runs and which all tests here share."""
    run_dir = tmp_path_factory.mktemp("deeds")
    start(run_dir)
    yield run_dir
    end_servers(WITH_DEEDS, run_dir)


def start(run_dir: Path, idle_s: float = 600) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", WITH_DEEDS, str(run_dir), str(idle_s)]
    with log_of(run_dir).open("ab") as output:
        environment = {**os.environ, SECRET: "do-not-tell"}
        started = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    until(lambda: (run_dir / SERVER.socket_name).exists() or started.poll() is not None)
    assert started.poll() in (None, 0), log_of(run_dir).read_text()
    return started


def log_of(run_dir: Path) -> Path:
    return run_dir / "validator.log"


def unknown(report: Report) -> str | None:
    (found,) = report.findings
    assert (found.code, found.severity) == ("unknown_error", "error")
    return found.found


def test_a_task_arrives_whole_and_its_report_comes_back(run_dir: Path):
    report = validate_warm(run_dir, task("answer", "s3://bucket/some/folder"), WAIT_S)
    assert report.facts.architecture == "s3://bucket/some/folder BF16 gpu"
    assert report.ok


def test_each_check_has_a_process_of_its_own_and_leaves_nothing(run_dir: Path):
    (server,) = servers(WITH_DEEDS, run_dir)
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: validate_warm(run_dir, task("answer"), WAIT_S), range(8)))
    assert len({report.read_bytes for report in reports}) == 8
    assert server.pid not in {report.read_bytes for report in reports}
    until(lambda: not server.children())
    assert not list(run_dir.glob("validate-*"))


@pytest.mark.parametrize(
    ("deed", "told", "logged"),
    [
        ("fail", "the check failed", "nobody expected this"),
        ("crash", "the check ended unexpectedly", "was ended by signal 11"),
        ("allocate", "the check needs more than 300 MiB of memory", "out of memory"),
    ],
)
def test_a_check_that_comes_to_grief_is_a_report(run_dir: Path, deed: str, told: str, logged: str):
    logged_before = log_of(run_dir).stat().st_size
    assert unknown(validate_warm(run_dir, task(deed), WAIT_S)) == told
    assert validate_warm(run_dir, task("answer"), WAIT_S).ok
    until(lambda: logged.encode() in log_of(run_dir).read_bytes()[logged_before:])


@pytest.mark.parametrize("deed", ["wait", "wait_in_sandbox"])
def test_a_check_that_takes_too_long_is_ended(run_dir: Path, deed: str):
    (server,) = servers(WITH_DEEDS, run_dir)
    started = time.monotonic()
    assert unknown(validate_warm(run_dir, task(deed), 0.5)) == "the check took longer than 0.5 s"
    assert time.monotonic() - started < WAIT_S
    until(lambda: not server.children(recursive=True))


def test_the_folder_of_a_check_that_was_ended_goes_with_the_next(run_dir: Path):
    validate_warm(run_dir, task("crash"), WAIT_S)
    (left,) = run_dir.glob("validate-*")
    assert [path.name for path in left.iterdir()] == ["config.json"]
    (server,) = servers(WITH_DEEDS, run_dir)
    until(lambda: not server.children())
    validate_warm(run_dir, task("answer"), WAIT_S)
    assert not left.exists()


def test_the_sandbox_of_a_check_has_a_limit_of_its_own(run_dir: Path):
    assert validate_warm(run_dir, task("allocate_in_sandbox"), WAIT_S).read_bytes > validator.MEMORY_BYTES


def test_a_check_has_credentials_and_its_sandbox_has_none(run_dir: Path):
    assert validate_warm(run_dir, task("tell_environment"), WAIT_S).facts.architecture == "do-not-tell None"


def test_a_validator_that_has_nothing_to_do_ends(tmp_path: Path):
    assert start(tmp_path, idle_s=0.1).wait(WAIT_S) == 0


def test_what_is_no_task_is_refused(run_dir: Path):
    with SERVER.connect(run_dir, WAIT_S, lambda: None) as connection:
        connection.settimeout(WAIT_S)
        connection.sendall(b'{"task": {}}\n')
        assert connection.recv(1) == b""


def test_no_validator_is_a_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(validator_client, "start", lambda run_dir, environment: None)
    monkeypatch.setattr(validator_client, "START_TIMEOUT_S", 0.1)
    with pytest.raises(TimeoutError, match="the validator did not answer"):
        validate_warm(tmp_path, task("answer"), WAIT_S)


def test_the_client_is_light():
    heavy = ("torch", "transformers", "boto3")
    code = f"import sys, app.weights.validator_client; sys.exit(any(n in sys.modules for n in {heavy}))"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- the real one


def test_the_demo_model_is_sound(warm_run_dir: Path, demo_model_folder: Path):
    report = validate_warm(warm_run_dir, task("demo", f"file://{demo_model_folder}"), WAIT_S)
    assert [found for found in report.findings if found.severity == "error"] == []
    assert report.facts.architecture == "LlamaForCausalLM"
    assert report.facts.parameters == 134_515_008
    (server,) = servers(SERVER.module, warm_run_dir)
    assert server.num_threads() == 1


def test_a_warm_validator_takes_moments_and_starts_no_second(warm_run_dir: Path, demo_model_folder: Path):
    again = task("demo", f"file://{demo_model_folder}")
    validate_warm(warm_run_dir, again, WAIT_S)
    (server,) = servers(SERVER.module, warm_run_dir)
    started = time.monotonic()
    validate_warm(warm_run_dir, again, WAIT_S)
    assert time.monotonic() - started < 15  # importing alone would take longer where much else runs
    assert servers(SERVER.module, warm_run_dir) == [server]


def test_a_broken_folder_says_what_is_wrong(warm_run_dir: Path, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    report = validate_warm(warm_run_dir, task("demo", f"file://{tmp_path}"), WAIT_S)
    assert not report.ok
    assert "unknown_error" not in {found.code for found in report.findings}
