"""Bring weights into the platform's object store as a version: python -m jobs.upload --spec SPEC"""

import shutil
from collections.abc import Sequence
from functools import partial

from app.core.findings import Facts, Finding, finding
from app.core.job_specs import JobOutcome, UploadTask
from app.core.model_specs import Source
from app.store.fetching import fetch_file
from app.store.folders import Folder, FolderFile, RefusedEntry, SourceChanged, fingerprint
from app.store.importing import import_folder
from app.store.layout import Manifest, job_object
from app.store.sources import open_source, own_prefix
from app.weights.convert import PickleRefused, convert_folder
from app.weights.folder_contents import sort_files
from jobs.validate import verdict_on
from jobs.workspace import Workspace, failed, main

SERVED = (".json", ".model", ".jinja", ".txt", ".tiktoken")
"""What an engine reads beside the weights; code, pickles and other formats stay where they are."""
GIB = 1 << 30
SPARE_BYTES = 2 * GIB
"""Of the node's disk, which others need too."""


def upload(workspace: Workspace) -> JobOutcome:
    """Copy, or convert and copy, or refer to the folder; publish the manifest last."""
    task = workspace.task
    assert isinstance(task, UploadTask)
    folder: Folder = open_source(task.source, workspace.settings)
    facts: Facts | None = None
    found: tuple[Finding, ...] = ()
    try:
        if task.listing and fingerprint(folder) != task.listing:
            return failed(_changed(None))
        contents = sort_files(folder.files())
        if contents.pickled and not contents.safetensors:
            if task.mode == "reference":
                fix = "Leave out mode reference: pickled weights are converted while they are copied."
                return failed(finding("pickle_refused", fix, file=contents.pickled[0].name))
            wanted = [file for file in contents.top.values() if file in contents.pickled or _is_served(file)]
            if short := _disk_short(workspace, wanted, contents.pickled):
                return failed(short)
            folder = _converted(workspace, folder, wanted, contents.pickled)
            if task.validation:
                outcome = verdict_on(_here(workspace), workspace)
                if not outcome.ok:
                    return outcome
                facts, found = outcome.facts, outcome.findings
        manifest = _publish(workspace, task, folder)
    except RefusedEntry as refused:
        return failed(finding("path_refused", "Leave it out of the folder.", file=refused.name, found=refused.kind))
    except SourceChanged as changed:
        return failed(_changed(changed.name))
    except PickleRefused as refused:
        return failed(finding("pickle_refused", "Save the weights as safetensors.", found=refused))
    return JobOutcome(
        ok=True, facts=facts, findings=found, prefix=manifest.prefix, digest=manifest.digest,
        size_bytes=manifest.total_bytes,
    )  # fmt: skip


def _publish(workspace: Workspace, task: UploadTask, folder: Folder) -> Manifest:
    files_prefix = None
    if task.mode == "reference":
        files_prefix = own_prefix(task.source, workspace.settings)
        if files_prefix is None:
            raise RefusedEntry("the folder", "not in the platform's own object store")
    weights = {file.name for file in sort_files(folder.files()).served}
    return import_folder(
        folder,
        workspace.store,
        model_id=task.model_id,
        name=task.name,
        base_model=task.base_model,
        precision=task.precision,
        journal=job_object(task.model_id, "journal.json"),  # the model's: a retry is another job
        wanted=lambda file: file.name in weights or _is_served(file),
        files_prefix=files_prefix,
        on_progress=partial(workspace.progress, "copying"),
    )


def _disk_short(workspace: Workspace, wanted: Sequence[FolderFile], pickled: Sequence[FolderFile]) -> Finding | None:
    """Pickled weights lie on this node twice for a while: as they came, and converted."""
    needed = sum(file.size_bytes for file in (*wanted, *pickled))
    there = sum(path.stat().st_size for path in workspace.scratch.rglob("*") if path.is_file())
    free = shutil.disk_usage(workspace.scratch).free + there
    if needed + SPARE_BYTES <= free:
        return None
    return finding(
        "disk_short",
        "Save the weights as safetensors: those are copied without a detour over the node's disk.",
        found=f"{needed / GIB:.1f} GiB needed",
        expected=f"at most {max(free - SPARE_BYTES, 0) / GIB:.1f} GiB",
    )


def _converted(
    workspace: Workspace, folder: Folder, wanted: Sequence[FolderFile], pickled: Sequence[FolderFile]
) -> Folder:
    """The folder with its pickled weights as safetensors, on this node."""
    here = workspace.scratch / "weights"
    here.mkdir(exist_ok=True)
    names = [file.name for file in pickled]
    total_bytes, done_bytes = sum(file.size_bytes for file in wanted), 0
    for file in wanted:
        fetch_file(folder, file, here / file.name)
        done_bytes += file.size_bytes
        workspace.progress("fetching", done_bytes, total_bytes)
    if not set(wanted) <= set(folder.files()):  # a file that was fetched is another by now
        raise SourceChanged("the folder")
    convert_folder(here, names, lambda name: workspace.progress(f"converting {name}"))
    for name in names:
        (here / name).unlink()
    return open_source(_here(workspace), workspace.settings)


def _here(workspace: Workspace) -> Source:
    return Source(uri=f"file://{(workspace.scratch / 'weights').resolve()}")


def _changed(name: str | None) -> Finding:
    return finding("source_changed", "Upload again once nobody writes to the folder.", file=name)


def _is_served(file: FolderFile) -> bool:
    return "/" not in file.name and (file.name.endswith(SERVED) or file.name.startswith("LICENSE"))


if __name__ == "__main__":
    main(upload)
