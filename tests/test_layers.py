"""Imports point down: pyproject.toml's contracts hold, they bite, and what they cannot say is said here."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "app").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")])
LINT = Path(sys.executable).with_name("lint-imports")

CLUSTER = "app/control_plane/cluster.py"
SERVE_DEPLOYS = {"build", "delete", "run", "run_many", "shutdown", "start", "status"}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LINT), "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(folder)},
    )


def imports_of(source: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of each import, name "" for `import module`."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def test_the_contracts_hold():
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout


VIOLATIONS = [
    # a file, a line in it, and the contract that it breaks
    ("app/core/sneaky_1.py", "import app.store", "Imports point down"),
    ("app/router/sneaky_2.py", "import app.control_plane", "Imports point down"),
    ("app/core/sneaky_3.py", "import socket", "The core is pure"),
    ("app/router/sneaky_4.py", "from vllm.v1.engine.async_llm import AsyncLLM", "vllm has one owner"),
    ("app/store/sneaky_5.py", "def f():\n    import boto3", "boto3 has one owner"),
    ("app/unit/sneaky_6.py", "import torch", "Only jobs, weight checks and the engine touch tensors"),
    ("jobs/sneaky_7.py", "import app.router", "Jobs know the store, the weights and the core only"),
]


@pytest.fixture(scope="module")
def said_of_all(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of this tree with all of the files in it; to look at one takes as long."""
    folder = tmp_path_factory.mktemp("sneaky")
    for name in ("app", "jobs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for file, line, _ in VIOLATIONS:
        (folder / file).write_text(f"{line}\n")
    result = lint(folder)
    assert result.returncode == 1, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize(("file", "line", "broken"), VIOLATIONS)
def test_a_violation_is_caught(said_of_all: str, file: str, line: str, broken: str):
    assert f"{broken} BROKEN" in said_of_all
    _, _, told = said_of_all.rpartition(f"\n{broken}\n")
    module = file.removesuffix(".py").replace("/", ".")
    assert f"{module} -> " in told, said_of_all


def test_the_core_imports_only_the_standard_library_and_pydantic():
    allowed = {*sys.stdlib_module_names, "pydantic", "pydantic_core"}
    for source in (ROOT / "app/core").rglob("*.py"):
        for module, _ in imports_of(source):
            assert module.split(".")[0] in allowed or module.startswith("app.core"), f"{source} imports {module}"


def test_only_the_cluster_module_submits_jobs_and_deploys():
    """import-linter sees `ray` as one module, so its parts are told apart here."""
    for source in SOURCES:
        if source.relative_to(ROOT).as_posix() == CLUSTER:
            continue
        assert not any(
            module.startswith("ray.job_submission") or (module, name) == ("ray", "job_submission")
            for module, name in imports_of(source)
        ), f"{source} imports ray.job_submission"
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "serve"
            assert not (called and node.attr in SERVE_DEPLOYS), f"{source}:{node.lineno} calls serve.{node.attr}"
