"""Make a new model of one, by training it on conversations: python -m jobs.finetune --spec SPEC

SPEC is what the control plane has written, or a TuningSpec as a JSON file of one's own: then the result is published
under an ID that follows from the file, and the platform finds it there.
"""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from app.core.errors import BadRequest, PlatformError
from app.core.field_errors import field_error
from app.core.findings import finding
from app.core.job_specs import TASK, WAITING_FOR_MACHINES, AnyTask, JobOutcome, TuneTask
from app.core.model_specs import Source
from app.core.tuning_card import model_card
from app.core.tuning_spec import TrainingPlan, TuningSpec, plan, sample_length
from app.settings import Settings
from app.store.fetching import fetch_version
from app.store.layout import (
    HELD_MANIFEST,
    Manifest,
    job_object,
    put_files,
    put_folder,
    read_manifest,
    write_manifest,
)
from app.store.object_store import ObjectMissing, ObjectStore
from app.store.objects import open_target
from app.tuning.data.problems import DataProblems
from app.tuning.data.reading import read_conversations
from app.tuning.data.sample_file import SampleFile, write_samples
from app.tuning.data.tokenizer import TokenizerUnusable, load_tokenizer
from app.tuning.inputs import Input
from app.tuning.reporter import Reporter
from app.tuning.run import Run, Train
from app.tuning.training import train
from jobs.datasets import DatasetRefused, data_failure, fetch_dataset
from jobs.validate import verdict_on
from jobs.workspace import (
    Workspace,
    copy_published,
    failed_so,
    job_id_of,
    main,
    named_base,
    named_machine,
    output_problem,
)

RESULT = "result.json"
"""The outcome of a job whose files are all in the store: whoever finds it has only to publish."""
CONFIG, CARD = "config.json", "README.md"
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
    if wrong := output_problem(workspace, task.spec.output, overwrite=task.spec.overwrite):
        return failed_so(wrong)
    try:
        data, data_sha256 = fetch_dataset(workspace, task.spec.dataset)
    except DatasetRefused as refused:
        return failed_so(refused.finding)
    try:
        base = _fetch_base(workspace, task, lambda name: not name.endswith(_WEIGHTS))  # wrong data cost no more
        samples = _prepare(workspace, task, base, data)
        planned = plan(task.spec, len(samples), _longest(base))
    except DataProblems as found:
        return data_failure(found)
    except TokenizerUnusable as unusable:
        return failed_so(finding("tokenizer_unloadable", "Upload the model with a chat template.", found=unusable))
    except BadRequest as wrong_value:
        return failed_so(finding("plan_impossible", "Change it, and make another job.", found=wrong_value))
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
        return failed_so(finding("training_failed", str(error)))  # it would come to the same again
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
    """Beside the new weights and their config.json: tokenizer, template and the rest, as they were published."""
    manifest = read_manifest(workspace.store, task.prefix)
    assert manifest is not None
    copy_published(manifest, run.base, run.output, lambda name: not name.endswith(_WEIGHTS) and name != CONFIG)
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
    base = named_base(store, spec.model)
    return TuneTask(
        job_id=job_id_of(text),
        model_id=base.model_id,
        base_model=base.base_model,
        prefix=base.prefix,
        spec=spec,
        machine=named_machine(spec.machine_type),
    )


if __name__ == "__main__":
    main(finetune, read_task)
