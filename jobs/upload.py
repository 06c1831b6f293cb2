"""Bring weights into the platform's object store as a version: python -m jobs.upload --spec SPEC"""

from functools import partial
from pathlib import Path

from app.catalog.catalog import Catalog
from app.core.findings import Facts, Finding, finding
from app.core.job_specs import JobOutcome, UploadTask
from app.core.model_specs import Source
from app.store.folders import Folder, FolderFile, RefusedEntry, SourceChanged, fingerprint
from app.store.importing import import_folder, reference_folder
from app.store.layout import Manifest, job_object
from app.store.sources import open_source, own_prefix
from app.weights.convert import PickleRefused, convert_folder
from app.weights.validator import ValidationTask, validate_warm
from jobs.validate import TIMEOUT_S
from jobs.workspace import Workspace, main

SERVED = (".safetensors", ".json", ".model", ".jinja", ".txt", ".tiktoken")
"""What an engine reads; code, pickles and other formats stay where they are."""
PICKLED = (".bin", ".ckpt")
NO_WEIGHTS = ("training_args.bin", "optimizer.bin", "scheduler.bin")
"""What training leaves beside the weights."""
CHUNK_BYTES = 16 << 20


def upload(workspace: Workspace) -> JobOutcome:
    """Copy, or convert and copy, or refer to the folder; publish the manifest last."""
    task = workspace.task
    assert isinstance(task, UploadTask)
    folder = open_source(task.source, workspace.settings)
    facts: Facts | None = None
    found: tuple[Finding, ...] = ()
    try:
        if task.listing and fingerprint(folder) != task.listing:
            return _failed(_changed(None))
        pickled = [
            file
            for file in folder.files()
            if _at_top(file) and file.name.endswith(PICKLED) and file.name not in NO_WEIGHTS
        ]
        if pickled and not any(file.name.endswith(".safetensors") for file in folder.files()):
            if task.mode == "reference":
                wrong = "Leave out mode reference: pickled weights are converted while they are copied."
                return _failed(finding("pickle_refused", wrong, file=pickled[0].name))
            folder = _converted(workspace, folder, pickled)
            if task.validation:
                outcome = _validated(workspace, task)
                if not outcome.ok:
                    return outcome
                facts, found = outcome.facts, outcome.findings
        manifest = _publish(workspace, task, folder)
    except RefusedEntry as refused:
        return _failed(finding("path_refused", "Leave it out of the folder.", file=refused.name, found=refused.kind))
    except SourceChanged as changed:
        return _failed(_changed(changed.name))
    except PickleRefused as refused:
        return _failed(finding("pickle_refused", "Save the weights as safetensors.", found=refused))
    return JobOutcome(
        ok=True, facts=facts, findings=found, prefix=manifest.prefix, digest=manifest.digest,
        size_bytes=manifest.total_bytes,
    )  # fmt: skip


def _publish(workspace: Workspace, task: UploadTask, folder: Folder) -> Manifest:
    publish = import_folder
    if task.mode == "reference":
        prefix = own_prefix(task.source, workspace.settings)
        if prefix is None:
            raise RefusedEntry("the folder", "not in the platform's own object store")
        publish = partial(reference_folder, files_prefix=prefix)
    return publish(
        folder,
        workspace.store,
        model_id=task.model_id,
        name=task.name,
        base_model=task.base_model,
        precision=task.precision,
        journal=job_object(task.model_id, "journal.json"),  # the model's: a retry is another job
        wanted=_is_served,
        on_progress=partial(workspace.progress, "copying"),
    )


def _converted(workspace: Workspace, folder: Folder, pickled: list[FolderFile]) -> Folder:
    """The folder with its pickled weights as safetensors, on this node."""
    here = workspace.scratch / "weights"
    here.mkdir(exist_ok=True)
    names = [file.name for file in pickled]
    wanted = [file for file in folder.files() if _is_served(file) or file.name in names]
    total_bytes, done_bytes = sum(file.size_bytes for file in wanted), 0
    for file in wanted:
        _fetch(folder, file, here / file.name)
        done_bytes += file.size_bytes
        workspace.progress("fetching", done_bytes, total_bytes)
    if _has_changed(folder, wanted):
        raise SourceChanged("the folder")
    convert_folder(here, names, lambda name: workspace.progress(f"converting {name}"))
    for name in names:
        (here / name).unlink()
    return open_source(_here(workspace), workspace.settings)


def _has_changed(folder: Folder, fetched: list[FolderFile]) -> bool:
    """Whether a file that was fetched is another by now."""
    return not set(fetched) <= set(folder.files())


def _fetch(folder: Folder, file: FolderFile, path: Path) -> None:
    arriving = path.with_name(f".{path.name}.part")
    with arriving.open("wb") as target:
        for start in range(0, file.size_bytes, CHUNK_BYTES):
            target.write(folder.read(file, start, min(CHUNK_BYTES, file.size_bytes - start)))
    arriving.replace(path)


def _validated(workspace: Workspace, task: UploadTask) -> JobOutcome:
    entry = Catalog.load(workspace.settings.catalog_file).find(task.base_model)
    if entry is None:
        return _failed(finding("template_selection_error", "Choose a base model of the catalogue."))
    wanted = ValidationTask(
        source=_here(workspace), entry=entry, precision=task.precision, machines=workspace.machines
    )  # fmt: skip
    report = validate_warm(workspace.settings.run_dir, wanted, TIMEOUT_S)
    errors = [found for found in report.findings if found.severity == "error"]
    reason = errors[0].message if errors else ""
    return JobOutcome(ok=report.ok, reason=reason, findings=report.findings, facts=report.facts)


def _here(workspace: Workspace) -> Source:
    return Source(uri=f"file://{workspace.scratch / 'weights'}")


def _failed(wrong: Finding) -> JobOutcome:
    return JobOutcome(ok=False, reason=wrong.message, findings=(wrong,))


def _changed(name: str | None) -> Finding:
    return finding("source_changed", "Upload again once nobody writes to the folder.", file=name)


def _at_top(file: FolderFile) -> bool:
    return "/" not in file.name


def _is_served(file: FolderFile) -> bool:
    return _at_top(file) and (file.name.endswith(SERVED) or file.name.startswith("LICENSE"))


if __name__ == "__main__":
    main(upload)
