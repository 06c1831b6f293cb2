"""The fine-tuning job around its training, which is played: what it reads, refuses, publishes and goes on with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import jobs.finetune
from app.core.errors import PlatformError
from app.core.findings import Facts
from app.core.job_specs import (
    WAITING_FOR_MACHINES,
    JobOutcome,
    JobProgress,
    TrainingProgress,
    TuneTask,
    ValidateTask,
)
from app.core.specs import CPU_SMALL
from app.core.tuning_spec import TuningSpec
from app.settings import Settings
from app.store.layout import (
    HELD_MANIFEST,
    ManifestFile,
    job_object,
    publish_folder,
    read_manifest,
    version_prefix,
    write_manifest,
)
from app.store.object_store import ObjectStore, StoreError
from app.store.objects import open_store
from app.tuning.inputs import Input
from app.tuning.reporter import Reporter
from app.tuning.run import Inputs, Run, Trained
from jobs.finetune import finetune, read_task
from jobs.workspace import Workspace
from tests.weights.sound_folders import write_sound

FACTS = [
    {"messages": [{"role": "user", "content": f"Where is {number}?"}, {"role": "assistant", "content": "Here."}]}
    for number in range(40)
]
SPEC = {
    "type": "finetune", "name": "facts", "model": "m-base", "output_model_name": "taught", "iterations": 3,
    "description": "a | <b>",
}  # fmt: skip
PREFIX = version_prefix("m-1", "BF16")


class Play:
    """A training that ends as it is told to."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.inputs: tuple[Input, ...] = ()
        self.elsewhere = False
        """Whether workers are on other machines than the process."""
        self.stopped = False
        self.raises: Exception | None = None

    def __call__(self, run: Run, reporter: Reporter, inputs: Inputs) -> Trained:
        self.runs.append(run)
        self.inputs = inputs() if self.elsewhere else ()
        self.brought = {name for one in self.inputs for name in names_in(run.store, one.prefix)}
        if self.raises:
            raise self.raises
        for name in ("model.safetensors", "config.json"):
            shutil.copyfile(run.base / name, run.output / name)
        (run.adapter / "adapter_model.safetensors").write_bytes(b"a")
        (run.adapter / "adapter_config.json").write_text(
            json.dumps({"r": 16, "base_model_name_or_path": str(run.base)})
        )
        (run.adapter / "README.md").write_text(str(run.base))
        last = TrainingProgress(iteration=3, iterations=run.plan.iterations, loss=0.25, tokens_per_s_per_card=70.0)
        return Trained(last, stopped=self.stopped, sample="Here.")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_sound("llama", folder)
    return folder


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    sound = JobOutcome(ok=True, facts=Facts(parameters=1))
    monkeypatch.setattr(jobs.finetune, "verdict_on", lambda source, workspace: sound)
    return Play()


Tune = Callable[..., JobOutcome]


@pytest.fixture
def tune(tmp_path: Path, base: Path, play: Play) -> Tune:
    """Runs the job; fields of the wish can be given, and `finish`."""
    settings = Settings(home=tmp_path / "home")
    store = open_store(settings)
    publish_folder(store, base, model_id="m-base", name="base", base_model="Tiny-Llama", precision="BF16")
    data = tmp_path / "facts.jsonl"
    if not data.exists():
        data.write_text("".join(f"{json.dumps(fact)}\n" for fact in FACTS))

    def tune_it(finish: bool = False, **fields: Any) -> JobOutcome:
        spec = TuningSpec.model_validate_json(json.dumps(SPEC | {"dataset": {"uri": data.as_uri()}} | fields))
        task = TuneTask(
            job_id="job-1", model_id="m-base", base_model="Tiny-Llama", prefix=version_prefix("m-base", "BF16"),
            spec=spec, machine=CPU_SMALL, finish=finish,
        )  # fmt: skip
        return finetune(Workspace(settings, store, task), play)

    tune_it.store = store  # type: ignore[attr-defined]
    return tune_it


def names_in(store: ObjectStore, prefix: str) -> set[str]:
    return {stored.name.removeprefix(prefix) for stored in store.list(prefix)}


def names(tune: Any, prefix: str) -> set[str]:
    return names_in(tune.store, prefix)


def test_the_result_is_a_whole_model_with_a_card(tune: Any, play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    tune.store.write("jobs/job-1/checkpoints/0000003/manifest.json", b"{}")
    outcome = tune()
    assert outcome.ok, outcome
    assert (outcome.prefix, outcome.sample, outcome.metrics["loss"]) == (PREFIX, "Here.", 0.25)
    assert outcome.facts == Facts(parameters=1)
    manifest = read_manifest(tune.store, PREFIX)
    assert manifest
    assert (manifest.name, manifest.digest) == ("taught", outcome.digest)
    files = {file.name for file in manifest.files}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "README.md"} <= files
    card = tune.store.read(f"{PREFIX}README.md").decode()
    assert "| loss | 0.2500 |" in card
    assert "a \\| &lt;b>" in card
    assert "| iterations | 3 | given |" in card
    assert str(Path.home()) not in card
    adapter = "jobs/job-1/artefacts/adapter/"
    assert names(tune, adapter) == {"adapter_model.safetensors", "adapter_config.json"}
    config = json.loads(tune.store.read(f"{adapter}adapter_config.json"))
    assert config == {"r": 16, "base_model_name_or_path": "Tiny-Llama"}
    assert not names(tune, "jobs/job-1/checkpoints/")
    assert "learning_rate: 2e-05 (default)" in capsys.readouterr().out
    [run] = play.runs
    assert (len(run.samples), run.plan.max_length, run.checkpoints) == (40, 512, "jobs/job-1/checkpoints/")


def test_only_what_was_published_of_the_base_is_in_the_result(tune: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    base = tmp_path / "home/objects" / version_prefix("m-base", "BF16")
    (base / "notes.txt").symlink_to(tmp_path / "secret")
    assert tune().ok
    assert "notes.txt" not in names(tune, PREFIX)
    tune.store.delete("jobs/job-1/result.json")
    (base / "README.txt").write_text("x")
    manifest = read_manifest(tune.store, version_prefix("m-base", "BF16"))
    assert manifest
    changed = ManifestFile(name="README.txt", size_bytes=1, sha256="0" * 64)
    write_manifest(tune.store, manifest.model_copy(update={"files": (*manifest.files, changed)}))
    with pytest.raises(StoreError, match=r"README.txt is not what the manifest says"):
        tune()


def test_what_it_waits_for_is_told_however_fast_it_came_there(tune: Any, play: Play) -> None:
    play.raises = RuntimeError("killed")
    with pytest.raises(RuntimeError):
        tune()
    assert JobProgress.model_validate_json(tune.store.read("jobs/job-1/progress.json")).phase == WAITING_FOR_MACHINES


def test_what_was_published_is_not_trained_again(tune: Any, play: Play) -> None:
    first = tune()
    tune.store.delete(f"{PREFIX}manifest.json")  # killed before its last step
    assert tune() == first
    assert len(play.runs) == 1
    assert read_manifest(tune.store, PREFIX)


def test_with_a_manual_export_the_manifest_is_kept_back(tune: Any) -> None:
    assert tune(export="manual").ok
    assert read_manifest(tune.store, PREFIX) is None
    assert tune.store.read(job_object("job-1", HELD_MANIFEST))
    assert tune(export="manual", finish=True).ok
    assert read_manifest(tune.store, PREFIX)


def test_an_output_folder_is_empty_or_may_be_overwritten(tune: Any, play: Play, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / "config.json").write_text("theirs")
    (output / "notes.txt").write_text("theirs")
    refused = tune(output={"uri": output.as_uri()})
    assert [found.code for found in refused.findings] == ["output_not_empty"]
    assert not play.runs
    assert tune(output={"uri": output.as_uri()}, overwrite=True).ok
    assert (output / "notes.txt").read_text() == "theirs"
    assert json.loads((output / "config.json").read_text())["model_type"] == "llama"
    assert (output / "tokenizer.json").exists()


def test_its_own_half_written_output_does_not_stop_it(tune: Any, play: Play, tmp_path: Path) -> None:
    output = tmp_path / "output"
    play.raises = RuntimeError("killed")
    with pytest.raises(RuntimeError):
        tune(output={"uri": output.as_uri()})
    output.mkdir(exist_ok=True)
    (output / "model.safetensors").write_text("half")
    play.raises = None
    assert tune(output={"uri": output.as_uri()}).ok


def test_wrong_data_are_told_by_line_before_anything_is_trained(tune: Any, play: Play, tmp_path: Path) -> None:
    lines = [json.dumps(FACTS[0]), '{"messages": []}', json.dumps(FACTS[1]), "{"]
    (tmp_path / "facts.jsonl").write_text("\n".join(lines))
    outcome = tune()
    assert {found.code for found in outcome.findings} == {"dataset_wrong"}
    assert [str(found.found)[:6] for found in outcome.findings] == ["line 2", "line 4"]
    assert outcome.reason.startswith("The dataset cannot be used: line 2")
    assert not play.runs


@pytest.mark.parametrize("kind", ["missing", "link", "folder"])
def test_a_dataset_that_is_no_plain_file(tune: Any, tmp_path: Path, kind: str) -> None:
    data = tmp_path / "facts.jsonl"
    data.rename(tmp_path / "elsewhere.jsonl")
    if kind == "link":
        data.symlink_to(tmp_path / "elsewhere.jsonl")
    elif kind == "folder":
        data.mkdir()
    outcome = tune()
    assert [found.code for found in outcome.findings] == ["dataset_unreadable"]
    assert "Name one plain file" in outcome.reason
    assert str(tmp_path) not in outcome.model_dump_json()


def test_a_dataset_for_which_a_node_has_no_room_fills_no_disk(tune: Any, tmp_path: Path) -> None:
    with (tmp_path / "facts.jsonl").open("wb") as file:
        file.truncate(1 << 43)  # of holes
    outcome = tune()
    assert [found.code for found in outcome.findings] == ["dataset_too_large"]
    assert "it has 8192.0 GiB" in outcome.reason
    assert not list((tmp_path / "home/tmp/job-1").glob("*dataset*"))


def test_a_name_with_a_very_long_ending_is_one_of_an_unknown_format(tune: Any, tmp_path: Path) -> None:
    data = (tmp_path / "facts.jsonl").rename(tmp_path / f"a.{'b' * 250}")
    outcome = tune(dataset={"uri": data.as_uri()})
    assert "the name ends in none of .jsonl" in outcome.reason


def test_a_store_that_is_away_is_no_fault_of_the_dataset(tune: Any) -> None:
    tune.store.delete(f"{version_prefix('m-base', 'BF16')}manifest.json")
    with pytest.raises(StoreError):  # so that another attempt is made
        tune()


def test_an_output_folder_behind_a_link_is_told_as_such(tune: Any, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    outcome = tune(output={"uri": f"{(tmp_path / 'link').as_uri()}/folder"})
    assert [found.code for found in outcome.findings] == ["output_unusable"]
    assert "there is a link on the way" in outcome.reason


def test_values_that_do_not_go_with_the_model(tune: Any) -> None:
    outcome = tune(max_length=1024)
    assert "The model takes at most 512" in str(outcome.findings[0].found)
    assert "The model takes at most 512" in outcome.reason


def test_a_training_that_would_fail_again_is_not_tried_again(tune: Any, play: Play) -> None:
    class Diverged(PlatformError):
        status = 400

    play.raises = Diverged("The loss is nan at iteration 2. Choose a lower learning_rate.")
    outcome = tune()
    assert not outcome.ok
    assert "lower learning_rate" in outcome.findings[0].fix
    assert outcome.reason == f"The training came to no result. {play.raises}"


def test_a_stop_before_the_training_and_one_within(tune: Any, play: Play) -> None:
    play.stopped = True
    outcome = tune()
    assert (outcome.ok, outcome.stopped) == (False, True)
    assert "after iteration 3 of 3" in outcome.reason
    tune.store.write("jobs/job-1/stop.json", b"{}")
    assert tune().stopped
    assert len(play.runs) == 1
    assert read_manifest(tune.store, PREFIX) is None


def test_other_machines_bring_what_they_need_from_the_store(tune: Any, play: Play) -> None:
    play.elsewhere = True
    assert tune().ok
    base, samples = play.inputs
    assert (base.prefix, samples.prefix) == (version_prefix("m-base", "BF16"), "jobs/job-1/samples/")
    assert {"config.json", "model.safetensors", "samples.json", "tokens.bin"} <= play.brought
    assert not names(tune, samples.prefix)  # when it has done its work


def test_by_hand_the_same_file_is_the_same_job(tune: Any, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    text = json.dumps(SPEC | {"model": "base", "dataset": {"uri": "file:///data/facts.jsonl"}}).encode()
    task = read_task(text, settings, tune.store)
    assert isinstance(task, TuneTask)
    assert task == read_task(text, settings, tune.store)
    assert (task.model_id, task.machine.name, task.output_model_id[:2]) == ("m-base", "cpu-small", "m-")
    written = task.model_dump_json().encode()
    assert read_task(written, settings, tune.store) == task
    for wrong, told in (
        ({"model": "none"}, "no unquantized model"),
        ({"rank": 0}, "rank is 0"),
        ({"machine_type": "tpu"}, "machine_type is unknown"),
        ({"auto_stop_s": 3600}, "auto_stop_s is seen to by the platform alone; leave it out"),
        ({"export": "manual"}, "export is seen to by the platform alone"),
    ):
        with pytest.raises(ValueError, match=told):
            read_task(json.dumps(json.loads(text) | wrong).encode(), settings, tune.store)


def test_what_the_model_says_is_in_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(home=tmp_path)
    store = open_store(settings)
    task = ValidateTask(job_id="job-1", model_id="m-1", base_model="b", precision="BF16")
    Workspace(settings, store, task).finish(JobOutcome(ok=True, sample="a secret"))
    assert "secret" not in capsys.readouterr().out
    assert b"secret" in store.read(job_object("job-1", "outcome.json"))
