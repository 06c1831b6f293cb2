"""The file of conversations that a job is given: brought here, and what is wrong with it in words for people."""

from pathlib import Path

from app.core.findings import finding
from app.core.job_specs import JobOutcome
from app.core.tuning_spec import Dataset
from app.store.fetching import fetch_file
from app.store.sources import open_file
from app.tuning.data.problems import DataProblems
from jobs.workspace import Workspace


def fetch_dataset(workspace: Workspace, dataset: Dataset) -> tuple[Path, str]:
    """The file, on this node, and its sha256. Raises RefusedEntry, SourceChanged, StoreError."""
    workspace.progress("fetching the dataset")
    folder, file = open_file(dataset, workspace.settings)
    path = workspace.scratch / f"dataset{Path(file.name).suffix.lower()}"
    return path, fetch_file(folder, file, path)


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
