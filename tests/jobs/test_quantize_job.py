"""The compression job: what it refuses before anything is loaded, what it publishes, stops and goes on with."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import jobs.quantize
from app.compression.quality.stopping import Stopped
from app.core.compression_spec import QuantizeSpec
from app.core.findings import Facts
from app.core.job_specs import JobOutcome, JobProgress, QuantizeTask
from app.core.quality import Gate, QualityCard, Verdict
from app.core.recipe import Recipe
from app.core.specs import CPU_SMALL, MachineType
from app.settings import Settings
from app.store.layout import publish_folder, read_manifest, sizes, version_prefix
from app.store.objects import open_store
from app.store.removal import delete_version
from jobs.quantize import compress, read_task
from jobs.workspace import Workspace
from tests.compression.small_models import tensors_of, write_llama
from tests.weights.sound_folders import edit_json

ROOT = Path(__file__).parents[2]
SPEC = {
    "type": "quantize", "name": "smaller", "model": "m-base", "precision": "SmoothQuant-W8A8",
    "calibration_samples": 3, "calibration_length": 32,
}  # fmt: skip
PREFIX = version_prefix("m-base", "SmoothQuant-W8A8")
CARD = QualityCard(
    perplexity_before=20.0, perplexity_after=20.4, kl_mean=0.01, kl_p99=0.1, greedy_agreement=0.97, greedy_tokens=256,
    size_before_bytes=2, size_after_bytes=1, held_out_tokens=1000, held_out_sha256="0" * 64,
)  # fmt: skip


class Play:
    """A measure of quality that finds what it is told to."""

    def __init__(self) -> None:
        self.card = CARD
        self.folders: list[tuple[Path, Path]] = []
        self.stops = False

    def __call__(self, original: Path, quantized: Path, tell: Callable[[str], bool]) -> QualityCard:
        self.folders.append((original, quantized))
        assert (quantized / "tokenizer.json").exists()
        tell("comparing")
        if self.stops:
            raise Stopped
        return self.card


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    sound = JobOutcome(ok=True, facts=Facts(parameters=1))
    monkeypatch.setattr(jobs.quantize, "verdict_on", lambda source, workspace: sound)
    return Play()


Run = Callable[..., JobOutcome]


@pytest.fixture
def run(tmp_path: Path, base: Path, play: Play) -> Run:
    """Runs the job; fields of the wish can be given, `machine` and `targets`."""
    settings = Settings(home=tmp_path / "home")
    store = open_store(settings)
    publish_folder(store, base, model_id="m-base", name="base", base_model="Tiny-Llama", precision="BF16")

    def run_it(
        machine: MachineType = CPU_SMALL,
        targets: tuple[MachineType, ...] = (CPU_SMALL,),
        source: str = "m-base",
        **fields: Any,
    ) -> JobOutcome:
        spec = QuantizeSpec.model_validate_json(json.dumps(SPEC | fields))
        task = QuantizeTask(
            job_id="job-1", model_id=source, base_model="Tiny-Llama", prefix=version_prefix(source, "BF16"),
            precision=spec.precision, spec=spec, machine=machine, targets=targets,
        )  # fmt: skip
        workspace = Workspace(settings, store, task)
        outcome = compress(workspace, play)
        workspace.finish(outcome)
        return outcome

    run_it.store, run_it.settings = store, settings  # type: ignore[attr-defined]
    return run_it


def test_a_version_is_published_with_its_recipe_and_its_card(run: Any, play: Play, base: Path) -> None:
    outcome = run()
    assert outcome.ok, outcome
    assert (outcome.prefix, outcome.quality, outcome.quality_failures) == (PREFIX, CARD, ())
    assert outcome.metrics["layers"] == 2
    assert outcome.metrics["peak_bytes"] > 0
    manifest = read_manifest(run.store, PREFIX)
    assert manifest
    assert (manifest.name, manifest.precision, manifest.digest) == ("base", "SmoothQuant-W8A8", outcome.digest)
    names = {file.name for file in manifest.files}
    assert {"config.json", "recipe.json", "model.safetensors.index.json", "tokenizer.json"} <= names
    assert not any(name.startswith(".") for name in names)
    assert Recipe.model_validate_json(run.store.read(f"{PREFIX}recipe.json")) == outcome.recipe
    assert outcome.recipe.migration_strength == 0.5
    told = JobProgress.model_validate_json(run.store.read("jobs/job-1/progress.json"))
    assert told.compression
    assert (told.compression.layer, told.compression.layers) == (2, 2)


def test_a_new_model_can_have_the_version_alone(run: Any) -> None:
    outcome = run(output_model_name="small", precision="AWQ-W4A16")
    assert outcome.prefix == version_prefix("m-1", "AWQ-W4A16")
    manifest = read_manifest(run.store, outcome.prefix)
    assert manifest
    assert manifest.name == "small"


def test_one_that_fails_its_gate_is_published_with_the_reasons(run: Any, play: Play) -> None:
    play.card = CARD.model_copy(update={"perplexity_after": 30.0})
    outcome = run(gate=Gate(perplexity_increase=0.2).model_dump(exclude_none=True))
    assert outcome.ok
    assert "50" in outcome.quality_failures[0]
    assert "20" in outcome.quality_failures[0]
    kept = Verdict.model_validate_json(run.store.read(f"{PREFIX}quality.json"))
    assert (kept.card, kept.failures) == (play.card, outcome.quality_failures)
    assert read_manifest(run.store, PREFIX)


def test_what_was_published_is_not_made_again(run: Any, play: Play) -> None:
    first = run()
    run.store.delete(f"{PREFIX}manifest.json")  # killed before its last step
    assert run() == first
    assert len(play.folders) == 1
    assert read_manifest(run.store, PREFIX)


def test_what_was_removed_after_it_was_published_is_made_again(run: Any, play: Play) -> None:
    first = run()
    delete_version(run.store, PREFIX)
    again = run()
    assert (again.ok, again.prefix, len(play.folders)) == (True, first.prefix, 2)
    manifest = read_manifest(run.store, PREFIX)
    assert manifest
    there = {f"{PREFIX}{file.name}" for file in manifest.files}
    assert sizes(run.store, PREFIX).keys() == there | {f"{PREFIX}manifest.json"}


def test_a_users_conversations_calibrate_too(run: Any, tmp_path: Path) -> None:
    data = tmp_path / "own.jsonl"
    turn = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "It is here. " * 9}]
    data.write_text("".join(f"{json.dumps({'messages': turn})}\n" for _ in range(20)))
    outcome = run(calibration={"uri": data.as_uri()})
    assert outcome.ok
    assert outcome.metrics["layers"] == 2


def test_wrong_conversations_are_told_by_line(run: Any, tmp_path: Path) -> None:
    data = tmp_path / "own.jsonl"
    data.write_text('{"messages": []}\n')
    outcome = run(calibration={"uri": data.as_uri()})
    assert [found.code for found in outcome.findings] == ["dataset_wrong"]
    assert str(tmp_path) not in outcome.model_dump_json()


def test_refused_before_anything_is_loaded(run: Any, play: Play, base: Path, tmp_path: Path) -> None:
    small = CPU_SMALL.model_copy(update={"memory_bytes": 64 << 20})
    short = run(machine=small)
    assert [found.code for found in short.findings] == ["compression_memory_short"]
    assert "cpu-small has 0.1 GiB" in short.findings[0].fix
    impossible = run(recipe={"group_size": 48}, precision="AWQ-W4A16")
    assert [found.code for found in impossible.findings] == ["compression_impossible"]
    assert "Sizes that do: 128, 64, 32" in str(impossible.findings[0].found)
    output = tmp_path / "output"
    output.mkdir()
    (output / "notes.txt").write_text("theirs")
    full = run(output={"uri": output.as_uri()})
    assert [found.code for found in full.findings] == ["output_not_empty"]
    assert not play.folders
    assert run(output={"uri": output.as_uri()}, overwrite=True).ok
    assert (output / "recipe.json").exists()


def test_a_version_that_is_there_and_a_model_that_is_quantized_are_refused(
    run: Any, play: Play, base: Path, tmp_path: Path
) -> None:
    publish_folder(run.store, base, model_id="m-base", name="base", base_model="b", precision="SmoothQuant-W8A8")
    assert [found.code for found in run().findings] == ["version_exists"]
    own = tmp_path / "quantized"
    shutil.copytree(base, own)
    edit_json(own / "config.json", lambda config: config.update(quantization_config={"quant_method": "awq"}))
    publish_folder(run.store, own, model_id="m-low", name="low", base_model="Tiny-Llama", precision="BF16")
    refused = run(precision="W4A8", source="m-low")
    assert [found.code for found in refused.findings] == ["quantization_config_extra"]
    assert not play.folders


def test_a_stop_is_heard_between_layers_and_while_quality_is_measured(run: Any, play: Play) -> None:
    run.store.write("jobs/job-1/stop.json", b"{}")
    outcome = run()
    assert (outcome.ok, outcome.stopped) == (False, True)
    assert read_manifest(run.store, PREFIX) is None
    run.store.delete("jobs/job-1/stop.json")
    play.stops = True
    late = run()
    assert late.stopped
    assert "another attempt" in late.reason
    assert read_manifest(run.store, PREFIX) is None
    play.stops = False
    assert run().ok


def test_a_spec_of_ones_own_finds_its_model(run: Any, base: Path) -> None:
    task = read_task(json.dumps(SPEC).encode(), run.settings, run.store)
    assert isinstance(task, QuantizeTask)
    assert (task.model_id, task.precision, task.targets) == ("m-base", "SmoothQuant-W8A8", (task.machine,))
    publish_folder(run.store, base, model_id="m-odd", name="odd", base_model="Unheard-Of", precision="BF16")
    with pytest.raises(ValueError, match="not offered for Unheard-Of"):
        read_task(json.dumps(SPEC | {"model": "m-odd"}).encode(), run.settings, run.store)
    with pytest.raises(ValueError, match="model names no unquantized model"):
        read_task(json.dumps(SPEC | {"model": "nobody"}).encode(), run.settings, run.store)
    with pytest.raises(ValueError, match="only SmoothQuant-W8A8 has one"):
        read_task(json.dumps(SPEC | {"precision": "W4A8", "migration_strength": 0.5}).encode(), run.settings, run.store)


@pytest.mark.timeout(600)
def test_killed_in_the_middle_it_has_published_nothing_and_ends_well_the_next_time(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    store = open_store(settings)
    write_llama(tmp_path / "base", num_hidden_layers=8)
    publish_folder(store, tmp_path / "base", model_id="m-base", name="base", base_model="Tiny-Llama", precision="BF16")
    spec = QuantizeSpec.model_validate_json(json.dumps(SPEC | {"precision": "AWQ-W4A16", "calibration_samples": 24}))
    task = QuantizeTask(
        job_id="job-1", model_id="m-base", base_model="Tiny-Llama", prefix=version_prefix("m-base", "BF16"),
        precision=spec.precision, spec=spec, machine=CPU_SMALL, targets=(CPU_SMALL,),
    )  # fmt: skip
    path = tmp_path / "task.json"
    path.write_text(task.model_dump_json())
    made = settings.home / "tmp/job-1/output"
    with started(path, settings) as process:
        deadline = time.monotonic() + 120
        while not any(made.glob("model-00003*")) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert any(made.glob("model-00003*"))
    assert not any(stored.name.startswith("models/m-base/AWQ") for stored in store.list("models/"))
    with started(path, settings) as process:
        out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out[-3000:]
    outcome = JobOutcome.model_validate_json(store.read("jobs/job-1/outcome.json"))
    assert outcome.ok, outcome
    assert "calibrating: 3 of 8 layers" in out or "calibrating: 4 of 8 layers" in out
    manifest = read_manifest(store, version_prefix("m-base", "AWQ-W4A16"))
    assert manifest
    published = tensors_of(tmp_path / "home/objects" / manifest.prefix)
    assert published["model.layers.7.mlp.down_proj.weight_packed"].dtype == torch.int32
    assert not made.exists()


def started(path: Path, settings: Settings) -> subprocess.Popen[str]:
    """The job in a process of its own; its quality is played, and the verdict on it too."""
    command = [sys.executable, "-m", "tests.jobs.quantize_process", "--spec", str(path)]
    environment = {**os.environ, **settings.to_environ(), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
