"""The validator's process for real, with deeds of our own in the place of a check; and once the real check."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from app.catalog.entries import CatalogEntry
from app.core.findings import Report
from app.core.job_specs import MachineMemory
from app.core.model_specs import Source
from app.weights import validator
from app.weights.validator import SERVER, ValidationTask, validate_warm
from tests.weights.validators import SECRET

WAIT_S = 60
ROOT = Path(__file__).parents[2]


def task(deed: str, uri: str = "file:///nowhere", architecture: str = "LlamaForCausalLM") -> ValidationTask:
    entry = CatalogEntry(base_model=deed, series="Test", architectures=(architecture,))
    machines = (MachineMemory(name="gpu", memory_bytes=1 << 40),)
    return ValidationTask(source=Source(uri=uri), entry=entry, precision="BF16", machines=machines)


def processes(module: str, run_dir: Path) -> list[psutil.Process]:
    """Validators of a folder, without the children that they forked."""
    found = [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[2:4] == [module, str(run_dir)]]
    return [p for p in found if p.ppid() not in {other.pid for other in found}]


def end(*found: psutil.Process) -> None:
    for process in found:
        process.kill()
    assert psutil.wait_procs(found, timeout=WAIT_S)[1] == []


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    """Of a validator with deeds, which is started at once."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    start(run_dir)
    yield run_dir
    end(*processes("tests.weights.validators", run_dir))


def start(run_dir: Path, idle_s: float = 600) -> None:
    command = [sys.executable, "-m", "tests.weights.validators", str(run_dir), str(idle_s)]
    with (run_dir / "validator.log").open("ab") as output:
        subprocess.Popen(command, cwd=ROOT, env={**os.environ, SECRET: "do-not-tell"}, stdout=output, stderr=output)
    until((run_dir / SERVER.socket_name).exists)


def unknown(report: Report) -> str | None:
    (found,) = report.findings
    assert (found.code, found.severity) == ("unknown_error", "error")
    return found.found


def test_a_task_arrives_whole_and_its_report_comes_back(run_dir: Path):
    report = validate_warm(run_dir, task("answer", "s3://bucket/some/folder"), WAIT_S)
    assert report.facts.architecture == "s3://bucket/some/folder BF16 gpu"
    assert report.ok


def test_each_check_has_a_process_of_its_own_and_leaves_nothing(run_dir: Path):
    (server,) = processes("tests.weights.validators", run_dir)
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
    assert unknown(validate_warm(run_dir, task(deed), WAIT_S)) == told
    assert validate_warm(run_dir, task("answer"), WAIT_S).ok
    until(lambda: logged in (run_dir / "validator.log").read_text())


@pytest.mark.parametrize("deed", ["wait", "wait_in_sandbox"])
def test_a_check_that_takes_too_long_is_ended(run_dir: Path, deed: str):
    (server,) = processes("tests.weights.validators", run_dir)
    started = time.monotonic()
    assert unknown(validate_warm(run_dir, task(deed), 0.5)) == "the check took longer than 0.5 s"
    assert time.monotonic() - started < WAIT_S
    until(lambda: not server.children(recursive=True))


def test_the_folder_of_a_check_that_was_ended_goes_with_the_next(run_dir: Path):
    validate_warm(run_dir, task("crash"), WAIT_S)
    (left,) = run_dir.glob("validate-*")
    assert [path.name for path in left.iterdir()] == ["config.json"]
    (server,) = processes("tests.weights.validators", run_dir)
    until(lambda: not server.children())
    validate_warm(run_dir, task("answer"), WAIT_S)
    assert not left.exists()


def test_the_sandbox_of_a_check_has_a_limit_of_its_own(run_dir: Path):
    assert validate_warm(run_dir, task("allocate_in_sandbox"), WAIT_S).read_bytes > validator.MEMORY_BYTES


def test_a_check_has_credentials_and_its_sandbox_has_none(run_dir: Path):
    assert validate_warm(run_dir, task("tell_environment"), WAIT_S).facts.architecture == "do-not-tell None"


def test_a_validator_that_has_nothing_to_do_ends(run_dir: Path):
    end(*processes("tests.weights.validators", run_dir))
    start(run_dir, idle_s=0.1)
    (server,) = processes("tests.weights.validators", run_dir)
    until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)


def test_what_is_no_task_is_refused(run_dir: Path):
    with SERVER.connect(run_dir, WAIT_S, lambda: None) as connection:
        connection.settimeout(WAIT_S)
        connection.sendall(b'{"task": {}}\n')
        assert connection.recv(1) == b""


def test_no_validator_is_a_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(validator, "start", lambda run_dir, environment: None)
    monkeypatch.setattr(validator, "START_TIMEOUT_S", 0.1)
    with pytest.raises(TimeoutError, match="the validator did not answer"):
        validate_warm(tmp_path, task("answer"), WAIT_S)


def test_the_client_is_light():
    code = (
        "import sys, app.weights.validator; sys.exit(any(n in sys.modules for n in ('torch', 'transformers', 'boto3')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- the real one


@pytest.fixture(scope="module")
def real_run_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    run_dir = tmp_path_factory.mktemp("home") / "run"
    yield run_dir
    end(*processes("app.weights.validator", run_dir))


def test_the_demo_model_is_sound(real_run_dir: Path, demo_model_folder: Path):
    report = validate_warm(real_run_dir, task("demo", f"file://{demo_model_folder}"), WAIT_S)
    assert [found for found in report.findings if found.severity == "error"] == []
    assert report.facts.architecture == "LlamaForCausalLM"
    assert report.facts.parameters == 134_515_008
    (server,) = processes("app.weights.validator", real_run_dir)
    assert server.num_threads() == 1


def test_a_warm_validator_takes_moments_and_starts_no_second(real_run_dir: Path, demo_model_folder: Path):
    again = task("demo", f"file://{demo_model_folder}")
    validate_warm(real_run_dir, again, WAIT_S)
    (server,) = processes("app.weights.validator", real_run_dir)
    started = time.monotonic()
    validate_warm(real_run_dir, again, WAIT_S)
    assert time.monotonic() - started < 15  # importing alone would take longer where much else runs
    assert processes("app.weights.validator", real_run_dir) == [server]


def test_a_broken_folder_says_what_is_wrong(real_run_dir: Path, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    report = validate_warm(real_run_dir, task("demo", f"file://{tmp_path}"), WAIT_S)
    assert not report.ok
    assert "unknown_error" not in {found.code for found in report.findings}
