"""Make a smaller, faster version of a model, and say what it has cost: python -m jobs.quantize --spec SPEC

SPEC is what the control plane has written, or a QuantizeSpec as a JSON file of one's own: then the result is published
under an ID that follows from the file, and the platform finds it there.
"""

import logging
import os
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
from pydantic import ValidationError

from app.catalog.catalog import Catalog
from app.compression.calibration import calibration_samples
from app.compression.checkpoint import WeightsUnusable
from app.compression.quality.stopping import Stopped as MeasuringStopped
from app.compression.quantizing import Stopped, quantize
from app.compression.reporter import Reporter
from app.compression.shipped import shipped_conversations
from app.core.compression_memory import memory_problem
from app.core.compression_plan import Stored, plan
from app.core.compression_spec import QuantizeSpec
from app.core.errors import BadRequest, without_paths
from app.core.field_errors import field_error
from app.core.findings import finding
from app.core.job_specs import TASK, AnyTask, JobOutcome, QuantizeTask
from app.core.model_specs import Source
from app.core.quality import QUALITY, QualityCard, Verdict, failures, gate_of
from app.core.recipe import Recipe
from app.settings import Settings
from app.store.fetching import fetch_version
from app.store.folders import SourceChanged, StoreFolder
from app.store.layout import (
    HELD_MANIFEST,
    Manifest,
    job_object,
    put_files,
    put_folder,
    read_manifest,
    sizes,
    version_prefix,
    write_manifest,
)
from app.store.object_store import ObjectMissing, ObjectStore
from app.store.objects import open_target
from app.tuning.data.problems import DataProblems
from app.tuning.data.reading import read_conversations
from app.tuning.data.tokenizer import TokenizerUnusable, load_tokenizer
from app.weights.safetensors_headers import HeaderError
from app.weights.stored_shapes import read_stored
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

log = logging.getLogger("jobs")

RESULT = "result.json"
"""The outcome of a job whose files are all in the store: whoever finds it has only to publish."""
CONFIG, RECIPE = "config.json", "recipe.json"
PLATFORMS_OWN = {"auto_stop_s", "keep_logs", "notify"}
"""Fields of a wish that nobody would see to in a job that is started by hand."""
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".gguf", ".md")
"""Files of the original, and what is said of it: the version has its own."""

_ADAPTER = "adapter_config.json"
"""Left in a folder without its weights it is in the way of transformers, and of no use to a model that is whole."""
Measure = Callable[[Path, Path, Callable[[str], bool]], QualityCard]
"""What the second folder's model has lost of the first one's; the callable hears what is done, and says if to stop."""


def measured(original: Path, quantized: Path, tell: Callable[[str], bool]) -> QualityCard:
    """The real measure."""
    from app.compression.quality.measuring import measure  # noqa: PLC0415 (seconds)

    return measure(original, quantized, tell)


def compress(workspace: Workspace, measure: Measure = measured) -> JobOutcome:
    """Fetch, choose, quantize, check, measure, publish: files first, the manifest last.

    What an attempt before did on this node stays done, layer by layer; on another node it begins anew.
    """
    task = workspace.task
    assert isinstance(task, QuantizeTask)
    if (done := _done(workspace)) is not None:
        return done
    reporter = Reporter(workspace.store, task.job_id)
    try:
        if wrong := output_problem(workspace, task.spec.output, overwrite=task.spec.overwrite):
            return failed_so(wrong)
        if refused := _refused(workspace, task):
            return refused
        workspace.progress("looking at the weights")
        stored = _stored(workspace, task)
        if stored is None:
            found = "no config.json or weights"
            return failed_so(finding("weights_unloadable", "Upload the model again.", found=found))
        if stored.quantized:
            fix = "Quantize the unquantized version of the model: each rounding adds to the one before."
            return failed_so(finding("quantization_config_extra", fix, tensor=stored.low))
        planned = plan(task.spec, stored, task.targets)
        recipe = planned.recipe
        print("\n".join(["the recipe:", *recipe.told()]), flush=True)
        print(
            f"predicted peak of memory: {planned.quantizing_bytes >> 20} MiB, and {planned.measuring_bytes >> 20} MiB "
            "while quality is measured",
            flush=True,
        )
        if problem := memory_problem(planned.peak_bytes, _free_bytes(task), task.machine.name):
            return failed_so(finding("compression_memory_short", problem))
        base = _fetch_base(workspace, task, lambda name: not name.endswith((*_WEIGHTS, _ADAPTER)))
        samples = _samples(workspace, task, base, recipe)
    except DataProblems as found:
        return data_failure(found)
    except DatasetRefused as refused:
        return failed_so(refused.finding)
    except TokenizerUnusable as unusable:
        return failed_so(finding("tokenizer_unloadable", "Upload the model with a chat template.", found=unusable))
    except HeaderError as damaged:
        return failed_so(finding("weights_unloadable", "Upload the model again.", found=damaged))
    except BadRequest as wrong_value:
        return failed_so(finding("compression_impossible", "Change it, and make another job.", found=wrong_value))
    if reporter.should_stop():
        return JobOutcome(ok=False, stopped=True, reason="it was stopped before its first layer", recipe=recipe)

    base = _fetch_base(workspace, task, lambda name: name != _ADAPTER)
    output = workspace.scratch / "output"
    try:
        quantize(base, output, recipe, samples, reporter.hear)
    except Stopped as stopped:
        last = stopped.progress
        told = f"it stopped after layer {last.layer} of {last.layers}; another attempt on this node goes on there"
        return JobOutcome(ok=False, stopped=True, reason=told, metrics=last.metrics, recipe=recipe)
    except WeightsUnusable as unusable:
        return failed_so(finding("compression_failed", "Choose another precision.", found=unusable))
    metrics = {**_metrics(reporter), "predicted_peak_bytes": float(planned.quantizing_bytes)}
    print(f"peak of memory: {int(metrics['peak_bytes']) >> 20} MiB", flush=True)

    reporter.phase("checking the result")
    _complete(workspace, task, base, output, recipe)
    outcome = verdict_on(Source(uri=output.resolve().as_uri()), workspace)
    outcome = outcome.model_copy(update={"metrics": metrics, "recipe": recipe})
    if not outcome.ok:
        return outcome
    try:
        card = measure(base, output, reporter.phase)
    except MeasuringStopped:
        return _stopped_late(outcome)
    except (OSError, RuntimeError, ValueError) as broken:
        log.error("quality cannot be measured: %s", type(broken).__name__)
        fix = "Resume the job to measure once more, or choose another precision."
        return failed_so(finding("compression_failed", fix, found=without_paths(str(broken))))
    reporter.phase("publishing")
    lost = failures(card, gate_of(task.precision, task.spec.gate))
    (output / QUALITY).write_text(Verdict(card=card, failures=lost).model_dump_json(indent=1), "utf-8")
    return _publish(workspace, task, output, outcome.model_copy(update={"quality": card, "quality_failures": lost}))


def _done(workspace: Workspace) -> JobOutcome | None:
    """The outcome, if an earlier attempt was only kept from telling it."""
    try:
        outcome = JobOutcome.model_validate_json(workspace.store.read(job_object(workspace.task.job_id, RESULT)))
        held = _held(workspace)
    except ObjectMissing:
        return None
    there = sizes(workspace.store, held.prefix)
    if any(there.get(held.prefix + file.name) != file.size_bytes for file in held.files):
        workspace.store.delete(job_object(workspace.task.job_id, RESULT))  # the version was removed since
        return None
    write_manifest(workspace.store, held)
    return outcome


def _refused(workspace: Workspace, task: QuantizeTask) -> JobOutcome | None:
    """Before anything is read: a version that exists, a base model that may not be compressed so."""
    if read_manifest(workspace.store, version_prefix(task.output_model_id, task.precision)) is not None:
        return failed_so(finding("version_exists", "Remove that version, or name a new model.", found=task.precision))
    return None


def _stored(workspace: Workspace, task: QuantizeTask) -> Stored | None:
    """Raises HeaderError."""
    try:
        return read_stored(StoreFolder(workspace.store, task.prefix))
    except SourceChanged as changed:
        raise HeaderError(str(changed)) from None


def _free_bytes(task: QuantizeTask) -> int:
    """What this node has free, and no more than a machine of its type has."""
    free_bytes = int(psutil.virtual_memory().available) + _peak_bytes()
    return min(free_bytes, task.machine.memory_bytes or free_bytes)


def _samples(workspace: Workspace, task: QuantizeTask, base: Path, recipe: Recipe) -> list[list[int]]:
    if not recipe.needs_calibration:
        return []
    workspace.progress("preparing the calibration")
    tokenizer = load_tokenizer(base)
    wanted = (recipe.calibration_samples, recipe.calibration_length)
    if task.spec.calibration is None:
        return calibration_samples(shipped_conversations(), tokenizer, *wanted)
    path, _ = fetch_dataset(workspace, task.spec.calibration)
    conversations = read_conversations(path, task.spec.calibration.format, scratch=workspace.scratch)
    return calibration_samples(conversations, tokenizer, *wanted)


def _fetch_base(workspace: Workspace, task: QuantizeTask, wanted: Callable[[str], bool]) -> Path:
    told = partial(workspace.progress, "fetching the weights")
    return fetch_version(workspace.store, task.prefix, workspace.scratch / "base", told, wanted)


def _peak_bytes() -> int:
    """Of this process up to now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _metrics(reporter: Reporter) -> dict[str, float]:
    return {**(reporter.last.metrics if reporter.last else {}), "peak_bytes": float(_peak_bytes())}


def _stopped_late(outcome: JobOutcome) -> JobOutcome:
    told = "it stopped when all layers were done; another attempt on this node goes on there"
    return outcome.model_copy(update={"ok": False, "stopped": True, "reason": told})


def _complete(workspace: Workspace, task: QuantizeTask, base: Path, output: Path, recipe: Recipe) -> None:
    """Beside the new weights and their config.json: tokenizer, template and the rest, as they were published."""
    manifest = read_manifest(workspace.store, task.prefix)
    assert manifest is not None
    copy_published(manifest, base, output, lambda name: not name.endswith(_WEIGHTS) and name not in (CONFIG, _ADAPTER))
    (output / RECIPE).write_text(recipe.model_dump_json(indent=1, exclude_none=True), "utf-8")


def _publish(workspace: Workspace, task: QuantizeTask, output: Path, outcome: JobOutcome) -> JobOutcome:
    """All files, then what was found of them, then the manifest: each step may be the last of an attempt."""
    if task.spec.output:
        put_files(open_target(task.spec.output.uri, workspace.settings), "", output)
    base = read_manifest(workspace.store, task.prefix)
    manifest = put_folder(
        workspace.store,
        output,
        model_id=task.output_model_id,
        name=task.spec.output_model_name or (base.name if base else task.spec.model),
        base_model=task.base_model,
        precision=task.precision,
    )
    where = {"prefix": manifest.prefix, "digest": manifest.digest, "size_bytes": manifest.total_bytes}
    outcome = outcome.model_copy(update=where)
    workspace.store.write(job_object(task.job_id, HELD_MANIFEST), manifest.model_dump_json().encode())
    workspace.store.write(job_object(task.job_id, RESULT), outcome.model_dump_json().encode())
    write_manifest(workspace.store, manifest)
    return outcome


def _held(workspace: Workspace) -> Manifest:
    """Of what an attempt has put. Raises ObjectMissing."""
    return Manifest.model_validate_json(workspace.store.read(job_object(workspace.task.job_id, HELD_MANIFEST)))


def read_task(text: bytes, settings: Settings, store: ObjectStore) -> AnyTask:
    """What SPEC says: a task, or a QuantizeSpec of somebody's own. Raises ValueError that says what is wrong."""
    try:
        if b'"job_id"' in text:
            return TASK.validate_json(text)
        spec = QuantizeSpec.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(field_error(error).message) from None
    wished = {name for name, value in spec if value != QuantizeSpec.model_fields[name].default}
    if others := sorted(wished & PLATFORMS_OWN):
        raise ValueError(f"{others[0]} is seen to by the platform alone; leave it out, or POST this to its jobs")
    base, machine = named_base(store, spec.model), named_machine(spec.machine_type)
    entry = Catalog.load(settings.catalog_file).find(base.base_model)
    if entry is None or spec.precision not in entry.compress:
        offered = ", ".join(entry.compress) if entry else ""
        raise ValueError(
            f"precision is {spec.precision}, which is not offered for {base.base_model}; offered: {offered or 'none'}"
        )
    return QuantizeTask(
        job_id=job_id_of(text),
        model_id=base.model_id,
        base_model=base.base_model,
        precision=spec.precision,
        prefix=base.prefix,
        spec=spec,
        machine=machine,
        targets=(machine,),
    )


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")  # before llm-compressor is imported: a log has no use for bars
    main(compress, read_task)
