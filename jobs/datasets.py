"""The file of conversations that a job is given: brought here, and what is wrong with it in words for people."""

import shutil
from pathlib import Path

from app.core.errors import without_paths
from app.core.findings import Finding, finding
from app.core.job_specs import JobOutcome
from app.core.tuning_spec import Dataset
from app.store.fetching import fetch_file
from app.store.folders import RefusedEntry, SourceChanged
from app.store.object_store import StoreError
from app.store.sources import open_file
from app.tuning.data.problems import DataProblems
from app.tuning.data.reading import SUFFIXES
from jobs.workspace import Workspace

DATASET_COPIES = 3
"""The file itself, its rows while they are sorted, and its tokens: what a dataset takes of a node's disk, about."""


class DatasetRefused(Exception):
    """The file cannot be had."""

    def __init__(self, finding: Finding):
        super().__init__(finding.message)
        self.finding = finding


def fetch_dataset(workspace: Workspace, dataset: Dataset) -> tuple[Path, str]:
    """The file, on this node, and its sha256. Raises DatasetRefused."""
    workspace.progress("fetching the dataset")
    try:
        folder, file = open_file(dataset, workspace.settings)
        _require_room(file.size_bytes, shutil.disk_usage(workspace.scratch).free)
        suffix = Path(file.name).suffix.lower()
        path = workspace.scratch / f"dataset{suffix if suffix in SUFFIXES else ''}"  # whose names may be of any length
        return path, fetch_file(folder, file, path)
    except (RefusedEntry, SourceChanged, StoreError) as refused:
        fix = "Name one plain file that the platform can read and nobody writes to."
        raise DatasetRefused(finding("dataset_unreadable", fix, found=without_paths(str(refused)))) from None


def _require_room(size_bytes: int, free_bytes: int) -> None:
    """A full disk would stop everything else on this node."""
    if DATASET_COPIES * size_bytes > free_bytes:
        size, free = (f"{amount / (1 << 30):.1f} GiB" for amount in (size_bytes, free_bytes))
        found = f"it has {size}; with room to sort and to tokenize {DATASET_COPIES} times that, {free} free"
        fix = "Split the dataset, or make room below MODELUNIT_HOME on the nodes."
        raise DatasetRefused(finding("dataset_too_large", fix, found=found))


def data_failure(found: DataProblems) -> JobOutcome:
    """What is wrong with the dataset, each with its line."""
    findings = tuple(
        finding(
            "dataset_wrong",
            problem.fix,
            found=", ".join(
                part for part in (f"{problem.unit} {problem.line}" if problem.line else "", problem.column) if part
            ),
            expected=problem.cause,
        )
        for problem in found.problems
    )
    first = str(found.problems[0])
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return JobOutcome(ok=False, reason=f"The dataset cannot be used: {first}{more}", findings=findings)
