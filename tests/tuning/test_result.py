"""What becomes of a checkpoint: a model that transformers loads, an adapter that peft loads, curves, an answer."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tensorboardX.proto.event_pb2 import Event

from app.core.tuning_spec import TrainingPlan
from app.store.file_store import FileStore
from app.tuning.checkpoints import CheckpointStore
from app.tuning.loop import Work, Worker, read_reports, train_here
from app.tuning.model import load
from app.tuning.result import answer, write_model, write_tensorboard
from tests.tuning.tiny_models import RandomSamples, plan_of, write_tiny
from tests.weights.sound_folders import write_sound

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    if request.param == "fp32":
        return write_tiny(folder)
    write_sound("llama-tied", folder)
    return folder


def checkpoint_of(plan: TrainingPlan, base: Path, folder: Path) -> Path:
    """Of a finished training."""
    store = CheckpointStore(FileStore(folder / "store"), "checkpoints/")
    samples = RandomSamples(plan.rows)
    train_here(Work(plan, base, samples, store), Worker(), lambda report: False)
    (folder / "checkpoint").mkdir()
    assert store.fetch_newest(plan, samples.digest, folder / "checkpoint")
    return folder / "checkpoint"


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.float().eval()(IDS).logits
        return found


def test_lora_is_merged_into_the_weights_and_kept_as_an_adapter(base: Path, tmp_path: Path):
    plan = plan_of(learning_rate=3e-3)
    write_model(plan, base, checkpoint_of(plan, base, tmp_path), tmp_path / "output", tmp_path / "adapter")
    merged, untouched = load(tmp_path / "output"), load(base)
    assert merged.dtype == untouched.dtype
    assert {path.name for path in (tmp_path / "output").iterdir()} == {"config.json", "model.safetensors"}
    assert load_file(tmp_path / "output" / "model.safetensors").keys() == load_file(base / "model.safetensors").keys()
    with_adapter = PeftModel.from_pretrained(load(base).float(), tmp_path / "adapter")
    tolerance = 1e-5 if merged.dtype == torch.float32 else 0.05
    wanted = logits(with_adapter)
    assert not torch.allclose(logits(untouched), wanted, rtol=0.05)
    assert torch.linalg.norm(logits(merged) - wanted) <= tolerance * torch.linalg.norm(wanted)


def test_fully_tuned_weights_are_the_trained_ones_in_the_precision_of_the_base(base: Path, tmp_path: Path):
    plan = plan_of(method="full", learning_rate=1e-3)
    checkpoint = checkpoint_of(plan, base, tmp_path)
    write_model(plan, base, checkpoint, tmp_path / "output", tmp_path / "adapter")
    state = load_file(checkpoint / "state.safetensors")
    tuned, before = load(tmp_path / "output"), load(base)
    assert not (tmp_path / "adapter").exists()
    for name, parameter in before.named_parameters():
        learnt = tuned.get_parameter(name)
        assert learnt.dtype == parameter.dtype
        assert torch.equal(learnt, state[f"weight/{name}"].to(parameter.dtype)), name
    assert not torch.equal(tuned.model.norm.weight.float(), state["exp_avg/model.norm.weight"])


def test_without_a_checkpoint_the_model_is_the_base(base: Path, tmp_path: Path):
    write_model(plan_of(iterations=0), base, None, tmp_path / "output", tmp_path / "adapter")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "output"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def events(path: Path) -> Iterator[Event]:
    """Of TensorBoard's file: for each its length (8 bytes), a check of that (4), itself, and a check of it (4)."""
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack_from("<Q", content)
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def test_tensorboard_has_a_point_for_each_iteration(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    plan = plan_of(validation_rows=5)
    reports = read_reports(checkpoint_of(plan, base, tmp_path))
    write_tensorboard(reports, tmp_path / "tensorboard")
    assert not caplog.text  # lines by the thousand would push those of the training out of what is kept
    (path,) = (tmp_path / "tensorboard").iterdir()
    points = {
        (value.tag, event.step): (value.simple_value, event.wall_time)
        for event in events(path)
        for value in event.summary.value
    }
    for report in reports:
        assert points["lm_loss", report.iteration] == (pytest.approx(report.loss, rel=1e-6), report.at_s)
    assert {step for tag, step in points if tag == "validation_loss"} == {2, 4, 6}


def test_the_new_model_answers(tmp_path: Path):
    write_sound("llama", tmp_path / "base")
    model = write_model(plan_of(iterations=0), tmp_path / "base", None, tmp_path / "output", tmp_path / "adapter")
    assert isinstance(answer(model, tmp_path / "base", [5, 6, 7]), str)
