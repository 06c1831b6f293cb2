"""Make a new model of one, by training it on conversations: python -m jobs.finetune --spec SPEC

SPEC is what the control plane has written, or a TuningSpec as a JSON file of one's own: then the result is published
under an ID that follows from the file, and the platform finds it there.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from app.core.errors import BadRequest, PlatformError, without_paths
from app.core.field_errors import field_error
from app.core.findings import Finding, finding
from app.core.job_specs import TASK, WAITING_FOR_MACHINES, AnyTask, JobOutcome, TuneTask
from app.core.model_specs import Source
from app.core.specs import DEFAULT_MACHINE_TYPE, MACHINE_TYPES
from app.core.tuning_card import model_card
from app.core.tuning_spec import TrainingPlan, TuningSpec, plan, sample_length
from app.settings import Settings
from app.store.fetching import fetch_file, fetch_version
from app.store.folders import RefusedEntry, SourceChanged
from app.store.layout import (
    HELD_MANIFEST,
    Manifest,
    find_manifests,
    job_object,
    put_files,
    put_folder,
    read_manifest,
    write_manifest,
)
from app.store.object_store import ObjectMissing, ObjectStore, StoreError
from app.store.objects import open_target
from app.store.sources import open_file
from app.tuning.data.problems import DataProblems
from app.tuning.data.reading import SUFFIXES, read_conversations
from app.tuning.data.sample_file import SampleFile, write_samples
from app.tuning.data.tokenizer import TokenizerUnusable, load_tokenizer
from app.tuning.inputs import Input
from app.tuning.reporter import Reporter
from app.tuning.run import Run, Train
from app.tuning.training import train
from jobs.validate import verdict_on
from jobs.workspace import Workspace, failed, main

RESULT = "result.json"
"""The outcome of a job whose files are all in the store: whoever finds it has only to publish."""
CONFIG, CARD = "config.json", "README.md"
DATASET_COPIES = 3
"""The file itself, its rows while they are sorted, and its tokens: what a dataset takes of a node's disk, about."""
PLATFORMS_OWN = {"auto_quantize", "auto_stop_s", "export", "keep_logs", "notify", "preemptible", "priority"}
"""Fields of a wish that nobody would see to in a job that is started by hand."""
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".gguf", ".md")
"""Files of the model that it begins with, and what is said of it: the new model has its own."""


def finetune(workspace: Workspace, train: Train = train) -> JobOutcome:
    """Fetch, prepare, train, check, publish: files first, the manifest last. What an earlier attempt did stays done."""
    task = workspace.task
    assert isinstance(task, TuneTask)
    if (done := _done(workspace, task)) is not None:
        return done
    reporter = Reporter(workspace.settings, task.job_id)
    if wrong := _output_problem(workspace, task):
        return _failed(wrong)
    try:
        data, data_sha256 = _fetch_dataset(workspace, task)
    except (RefusedEntry, SourceChanged, StoreError) as refused:
        fix = "Name one plain file that the platform can read and nobody writes to."
        return _failed(finding("dataset_unreadable", fix, found=without_paths(str(refused))))
    except _DiskShort as short:
        fix = "Split the dataset, or make room below MODELUNIT_HOME on the nodes."
        return _failed(finding("dataset_too_large", fix, found=short))
    try:
        base = _fetch_base(workspace, task, lambda name: not name.endswith(_WEIGHTS))  # wrong data cost no more
        samples = _prepare(workspace, task, base, data)
        planned = plan(task.spec, len(samples), _longest(base))
    except DataProblems as found:
        return _data_failure(found)
    except TokenizerUnusable as unusable:
        return _failed(finding("tokenizer_unloadable", "Upload the model with a chat template.", found=unusable))
    except BadRequest as wrong_value:
        return _failed(finding("plan_impossible", "Change it, and make another job.", found=wrong_value))
    print("\n".join(["the plan:", *planned.told()]), flush=True)
    if reporter.should_stop():
        return JobOutcome(ok=False, stopped=True, reason="it was stopped before its first iteration")

    _fetch_base(workspace, task, lambda name: True)
    workspace.progress(WAITING_FOR_MACHINES)
    run = _run(workspace, task, planned, base, samples)
    try:
        trained = train(run, reporter, partial(_inputs, workspace, task, run))
    except PlatformError as error:
        if error.status >= 500:
            raise
        return _failed(finding("training_failed", str(error)))  # it would come to the same again
    last = trained.progress
    if trained.stopped:
        told = f"it stopped at a checkpoint, after iteration {last.iteration} of {last.iterations}"
        return JobOutcome(ok=False, stopped=True, reason=told, metrics=last.metrics)

    workspace.progress("checking the result")
    _complete(workspace, task, run, model_card(task, planned, last, data_sha256, samples.digest))
    outcome = verdict_on(Source(uri=run.output.resolve().as_uri()), workspace)
    if not outcome.ok:
        return outcome.model_copy(update={"metrics": last.metrics})
    workspace.progress("publishing")
    measured = {"metrics": last.metrics, "sample": trained.sample}
    return _publish(workspace, task, run, outcome.model_copy(update=measured))


def _done(workspace: Workspace, task: TuneTask) -> JobOutcome | None:
    """The outcome, if an earlier attempt was only kept from telling it."""
    try:
        outcome = JobOutcome.model_validate_json(workspace.store.read(job_object(task.job_id, RESULT)))
    except ObjectMissing:
        return None
    _release(workspace, task)
    return outcome


def _run(workspace: Workspace, task: TuneTask, planned: TrainingPlan, base: Path, samples: SampleFile) -> Run:
    folders = {name: workspace.scratch / name for name in ("output", "adapter", "tensorboard")}
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    return Run(
        plan=planned,
        base=base,
        samples=samples,
        **folders,
        store=workspace.store,
        checkpoints=job_object(task.job_id, "checkpoints/"),
        machine=task.machine,
        instances=task.spec.instances,
        finish=task.finish,
    )


def _inputs(workspace: Workspace, task: TuneTask, run: Run) -> tuple[Input, ...]:
    """What other machines need of this one's disk."""
    folder, samples = workspace.scratch / "samples", job_object(task.job_id, "samples/")
    put_files(workspace.store, samples, folder)
    manifest = read_manifest(workspace.store, task.prefix)
    assert manifest is not None
    return Input(run.base, manifest.files_at), Input(folder, samples)


def _fetch_base(workspace: Workspace, task: TuneTask, wanted: Callable[[str], bool]) -> Path:
    told = partial(workspace.progress, "fetching the weights")
    return fetch_version(workspace.store, task.prefix, workspace.scratch / "base", told, wanted)


def _fetch_dataset(workspace: Workspace, task: TuneTask) -> tuple[Path, str]:
    """The file, on this node, and its sha256."""
    workspace.progress("fetching the dataset")
    folder, file = open_file(task.spec.dataset, workspace.settings)
    free_bytes = shutil.disk_usage(workspace.scratch).free
    if DATASET_COPIES * file.size_bytes > free_bytes:  # a full disk would stop everything else on this node
        gib = [f"{size_bytes / (1 << 30):.1f} GiB" for size_bytes in (file.size_bytes, free_bytes)]
        raise _DiskShort(
            f"it has {gib[0]}; with room to sort and to tokenize {DATASET_COPIES} times that, {gib[1]} free"
        )
    suffix = Path(file.name).suffix.lower()
    path = workspace.scratch / f"dataset{suffix if suffix in SUFFIXES else ''}"  # whose names may be of any length
    return path, fetch_file(folder, file, path)


def _prepare(workspace: Workspace, task: TuneTask, base: Path, data: Path) -> SampleFile:
    """The dataset's conversations as tokens, made anew by each attempt: the same file gives the same ones."""
    workspace.progress("reading the dataset")
    folder = workspace.scratch / "samples"
    shutil.rmtree(folder, ignore_errors=True)
    length = sample_length(task.spec, _longest(base))
    conversations = read_conversations(data, task.spec.dataset.format, scratch=workspace.scratch)
    return write_samples(conversations, load_tokenizer(base), length, folder)


def _longest(base: Path) -> int | None:
    """The most tokens that the model takes, as its config.json says."""
    config = json.loads((base / CONFIG).read_bytes())
    longest = config.get("text_config", config).get("max_position_embeddings")
    return longest if isinstance(longest, int) else None


def _complete(workspace: Workspace, task: TuneTask, run: Run, card: str) -> None:
    """Beside the new weights and their config.json: the tokenizer, the template and the rest, as they were published.

    What else has come to lie there since, links too, is none of the model.
    """
    manifest = read_manifest(workspace.store, task.prefix)
    assert manifest is not None
    for file in manifest.files:
        if file.name.endswith(_WEIGHTS) or file.name == CONFIG:
            continue
        path = run.output / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run.base / file.name, path)
        if hashlib.sha256(path.read_bytes()).hexdigest() != file.sha256:
            raise StoreError(f"{file.name} is not what the manifest says")
    (run.output / CARD).write_text(card, "utf-8")


def _anonymous(adapter: Path, base_model: str) -> None:
    """What peft writes of the base is where it lay on this machine."""
    (adapter / CARD).unlink(missing_ok=True)
    config = adapter / "adapter_config.json"
    if config.exists():
        fields = json.loads(config.read_bytes()) | {"base_model_name_or_path": base_model}
        config.write_text(json.dumps(fields, indent=1), "utf-8")


def _publish(workspace: Workspace, task: TuneTask, run: Run, outcome: JobOutcome) -> JobOutcome:
    """All files, then what was found of them, then the manifest: each step may be the last of an attempt."""
    if task.spec.output:
        put_files(open_target(task.spec.output.uri, workspace.settings), "", run.output)
    _anonymous(run.adapter, task.base_model)
    for folder in (run.adapter, run.tensorboard):
        put_files(workspace.store, job_object(task.job_id, f"artefacts/{folder.name}/"), folder)
    manifest = put_folder(
        workspace.store,
        run.output,
        model_id=task.output_model_id,
        name=task.spec.output_model_name,
        base_model=task.base_model,
        precision="BF16",
    )
    where = {"prefix": manifest.prefix, "digest": manifest.digest, "size_bytes": manifest.total_bytes}
    outcome = outcome.model_copy(update=where)
    workspace.store.write(job_object(task.job_id, HELD_MANIFEST), manifest.model_dump_json().encode())
    workspace.store.write(job_object(task.job_id, RESULT), outcome.model_dump_json().encode())
    _release(workspace, task)
    return outcome


def _release(workspace: Workspace, task: TuneTask) -> None:
    """Write the manifest, unless people want to have a look first; what only training needed has done its work."""
    store = workspace.store
    if task.spec.export == "auto" or task.finish:
        write_manifest(store, Manifest.model_validate_json(store.read(job_object(task.job_id, HELD_MANIFEST))))
    for needed in ("checkpoints/", "samples/"):
        for stored in list(store.list(job_object(task.job_id, needed))):
            store.delete(stored.name)


def _output_problem(workspace: Workspace, task: TuneTask) -> Finding | None:
    """Why the folder that people named cannot be written to; asked once, for then our own files are there."""
    if task.spec.output is None:
        return None
    mark = job_object(task.job_id, "output-checked")
    if next(workspace.store.list(mark), None) is not None:
        return None
    try:
        there = next(open_target(task.spec.output.uri, workspace.settings).list(""), None)
    except StoreError as refused:
        fix = "Name a folder that the platform can write to, with no link on the way to it."
        return finding("output_unusable", fix, found=without_paths(str(refused)))
    if there is not None and not task.spec.overwrite:
        return finding("output_not_empty", "Empty it, or say overwrite: true.", file=there.name)
    workspace.store.write(mark, b"")
    return None


def _failed(wrong: Finding) -> JobOutcome:
    """The outcome of a job that found just this; its reason alone says what was found and what to do."""
    told = (wrong.message, f"{wrong.found.rstrip('.')}." if wrong.found else "", wrong.fix)
    return failed(wrong).model_copy(update={"reason": " ".join(part for part in told if part)})


class _DiskShort(Exception):
    """The dataset is too large for this node."""


def _data_failure(found: DataProblems) -> JobOutcome:
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


def read_task(text: bytes, settings: Settings, store: ObjectStore) -> AnyTask:
    """What SPEC says: a task, or a TuningSpec of somebody's own. Raises ValueError that says what is wrong with it."""
    try:
        if b'"job_id"' in text:
            return TASK.validate_json(text)
        spec = TuningSpec.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(field_error(error).message) from None
    wished = {name for name, value in spec if value != TuningSpec.model_fields[name].default}
    if others := sorted(wished & PLATFORMS_OWN):
        raise ValueError(f"{others[0]} is seen to by the platform alone; leave it out, or POST this to its jobs")
    versions = [manifest for manifest in find_manifests(store) if manifest.precision == "BF16"]
    base = next((one for one in versions if spec.model in (one.model_id, one.name)), None)
    if base is None:
        raise ValueError("model names no unquantized model in the object store")
    machine = MACHINE_TYPES.get(spec.machine_type or DEFAULT_MACHINE_TYPE)
    if machine is None:
        raise ValueError(f"machine_type is unknown here; allowed: {', '.join(sorted(MACHINE_TYPES))}")
    return TuneTask(
        job_id=f"job-{hashlib.sha256(text).hexdigest()[:20]}",  # the same file again goes on where it was
        model_id=base.model_id,
        base_model=base.base_model,
        prefix=base.prefix,
        spec=spec,
        machine=machine,
    )


if __name__ == "__main__":
    main(finetune, read_task)
