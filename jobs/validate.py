"""Validate weights where they lie: python -m jobs.validate --spec SPEC"""

from app.catalog.catalog import Catalog
from app.core.findings import finding
from app.core.job_specs import JobOutcome, QuantizeTask, ValidateTask
from app.core.model_specs import Source
from app.store.folders import RefusedEntry, fingerprint
from app.store.layout import read_manifest
from app.store.object_store import StoreError
from app.store.sources import open_source
from app.weights.validator_client import ValidationTask, validate_warm
from jobs.workspace import Workspace, failed, main

TIMEOUT_S = 300.0


def validate(workspace: Workspace) -> JobOutcome:
    """The verdict on the folder, and the fingerprint of what was looked at."""
    task = workspace.task
    assert isinstance(task, ValidateTask)
    workspace.progress("validating")
    source = task.source or _published(workspace, task.prefix or "")
    try:
        listing = fingerprint(open_source(source, workspace.settings))
    except (RefusedEntry, StoreError):
        listing = None  # the validator says what is wrong with it
    return verdict_on(source, workspace).model_copy(update={"listing": listing})


def verdict_on(source: Source, workspace: Workspace) -> JobOutcome:
    """What this node's validator says of the weights there, as those that the task declares."""
    task = workspace.task
    entry = Catalog.load(workspace.settings.catalog_file).find(task.base_model)
    if entry is None:
        fix = "Choose a base model of the catalogue, or ask the operator to add this one."
        return failed(finding("template_selection_error", fix, found=task.base_model))
    made_here = isinstance(task, QuantizeTask) or (isinstance(task, ValidateTask) and task.prefix is not None)
    report = validate_warm(
        workspace.settings.run_dir,
        ValidationTask(
            source=source, entry=entry, precision=task.precision, machines=workspace.machines, made_here=made_here
        ),
        TIMEOUT_S,
    )
    errors = [found for found in report.findings if found.severity == "error"]
    return JobOutcome(
        ok=report.ok,
        reason=errors[0].message if errors else "",
        findings=report.findings,
        facts=report.facts,
        read_bytes=report.read_bytes,
    )


def _published(workspace: Workspace, prefix: str) -> Source:
    """Where the files of a version lie. Raises ValueError when there is none."""
    manifest = read_manifest(workspace.store, prefix)
    if manifest is None:
        raise ValueError(f"nothing is published at {prefix!r}")
    return Source(uri=f"{workspace.settings.objects.rstrip('/')}/{manifest.files_at.rstrip('/')}")


if __name__ == "__main__":
    main(validate)
