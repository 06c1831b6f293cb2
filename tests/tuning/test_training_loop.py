"""The loop that a worker runs, on tiny models: what it learns, and that nothing but the plan decides it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from app.core.errors import InvalidField
from app.core.tuning_spec import TrainingPlan
from app.store.file_store import FileStore
from app.tuning.checkpoints import CheckpointStore
from app.tuning.loop import Diverged, Work, Worker, train_here
from app.tuning.model import TrainedModel
from app.tuning.packing import Packed
from app.tuning.reports import Report
from tests.tuning.tiny_models import RandomSamples, plan_of, write_tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So little arithmetic is slower on several cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Killed(BaseException):
    """As sudden as can be within a process."""


def trained(
    plan: TrainingPlan, base: Path, store: Path, *, killed_at: int | None = None, stopped_at: int | None = None
) -> list[Report]:
    told: list[Report] = []

    def tell(report: Report) -> bool:
        told.append(report)
        if report.iteration == killed_at:
            raise Killed
        return report.iteration == stopped_at

    work = Work(plan, base, RandomSamples(plan.rows), CheckpointStore(FileStore(store), "jobs/job-1/checkpoints/"))
    try:
        train_here(work, Worker(), tell)
    except Killed:
        assert killed_at
    return told


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_loss_falls(base: Path, tmp_path: Path, method: str):
    rate = {"lora": 1e-2, "full": 1e-3}[method]
    losses = [r.loss for r in trained(plan_of(method=method, iterations=30, learning_rate=rate), base, tmp_path)]
    assert len(losses) == 30
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_packed_samples_give_the_loss_and_the_gradients_of_each_alone(base: Path, method: str, precision: str):
    samples = RandomSamples(6)
    model = TrainedModel(base, plan_of(method=method, precision=precision), CPU)
    assert model.packs
    for parameter in model.trained.values():  # LoRA's B is 0 at first, and so would be A's gradients
        torch.nn.init.normal_(parameter, std=0.05)
    if model.adapters:
        model.adapters.changed()

    def gradients(groups: list[list[int]]) -> tuple[float, dict[str, torch.Tensor]]:
        total = 0.0
        for group in groups:
            loss = model.summed_loss(Packed.of([samples[number] for number in group], CPU))
            loss.backward()
            total += loss.item()
        found = {name: p.grad.float() for name, p in model.trained.items() if p.grad is not None}
        for parameter in model.trained.values():
            parameter.grad = None
        return total, found

    loss, together = gradients([[0, 1, 2, 3, 4, 5]])
    alone_loss, alone = gradients([[number] for number in range(6)])
    tolerance = 1e-5 if precision == "fp32" else 0.03
    assert loss == pytest.approx(alone_loss, rel=tolerance)
    assert together.keys() == alone.keys()
    for name, gradient in together.items():
        assert (gradient - alone[name]).norm() <= tolerance * alone[name].norm(), name


def test_what_one_sample_says_does_not_depend_on_those_beside_it(base: Path):
    model = TrainedModel(base, plan_of(), CPU)
    first, second, other = (RandomSamples(3)[number] for number in range(3))
    length = len(second[0])

    def logits(*samples: object) -> torch.Tensor:
        row = Packed.of(samples, CPU)  # type: ignore[arg-type]
        with torch.no_grad():
            return model.model(input_ids=row.ids, position_ids=row.positions, borders=row.borders)["logits"][0]

    alone = logits(second)
    assert torch.allclose(logits(first, second)[-length:], alone, atol=1e-5)
    assert torch.allclose(logits(other, first, second)[-length:], alone, atol=1e-5)
    assert torch.allclose(logits(second, other)[:length], alone, atol=1e-5)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("killed_at", [1, 2, 3, 5])
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(base: Path, tmp_path: Path, method: str, killed_at: int):
    plan = plan_of(method=method, dropout=0.1 if method == "lora" else 0.0, learning_rate=1e-3, validation_rows=5)
    whole = trained(plan, base, tmp_path / "whole")
    before = trained(plan, base, tmp_path / "killed", killed_at=killed_at)
    after = trained(plan, base, tmp_path / "killed")
    assert before[-1].iteration == killed_at
    assert after[0].iteration <= killed_at + 1
    by_iteration = {report.iteration: report for report in (*before, *after)}
    for report in whole:
        again = by_iteration[report.iteration]
        assert again.loss == pytest.approx(report.loss, abs=1e-6)
        assert again.learning_rate == report.learning_rate
        if report.validation_loss is not None:
            assert again.validation_loss == pytest.approx(report.validation_loss, abs=1e-6)


def test_a_run_that_is_stopped_ends_with_a_checkpoint_and_can_go_on(base: Path, tmp_path: Path):
    plan = plan_of(checkpoint_every=100)
    whole = trained(plan, base, tmp_path / "whole")
    stopped = trained(plan, base, tmp_path / "stopped", stopped_at=2)
    assert [report.iteration for report in stopped] == [1, 2, 3]
    rest = trained(plan, base, tmp_path / "stopped")
    assert [report.iteration for report in rest] == [4, 5, 6]
    assert rest[-1].loss == pytest.approx(whole[-1].loss, abs=1e-6)


def test_a_loss_that_is_no_number_says_what_to_change(base: Path, tmp_path: Path):
    with pytest.raises(Diverged, match="lower learning_rate"):
        trained(plan_of(method="full", learning_rate=1e30, warmup_iterations=0), base, tmp_path)


def test_a_run_that_is_done_is_not_done_again(base: Path, tmp_path: Path):
    trained(plan_of(), base, tmp_path)
    assert trained(plan_of(), base, tmp_path) == []


def test_another_plan_begins_anew(base: Path, tmp_path: Path):
    trained(plan_of(), base, tmp_path)
    assert trained(plan_of(seed=8), base, tmp_path)[0].iteration == 1


def test_recomputed_layers_give_the_same_loss(base: Path):
    samples = RandomSamples(4)
    batch = Packed.of([samples[number] for number in range(4)], CPU)
    losses = []
    for spare in (False, True):
        model = TrainedModel(base, plan_of(method="full"), CPU)
        if spare:
            model.spare_memory()
        loss = model.summed_loss(batch)
        loss.backward()
        losses.append((loss.item(), model.model.model.layers[0].mlp.up_proj.weight.grad.norm().item()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("targets", "tied", "told"),
    [
        (("nothing",), False, "nothing is no linear layer of the model; there are down_proj, gate_proj, k_proj, lm"),
        (("q_proj", "v_prj"), False, "v_prj is no linear layer"),
        (("embed_tokens",), False, "embed_tokens is no linear layer"),
        (("lm_head",), True, "lm_head shares its weights with the embedding"),
    ],
)
def test_targets_that_lora_cannot_change_are_an_error_that_says_so(
    tmp_path: Path, targets: tuple[str, ...], tied: bool, told: str
):
    folder = write_tiny(tmp_path, tie_word_embeddings=tied)
    with pytest.raises(InvalidField, match=told):
        TrainedModel(folder, plan_of(targets=targets), CPU)


def test_targets_may_be_told_apart_by_the_layers_above(base: Path):
    model = TrainedModel(base, plan_of(targets=("layers.0.mlp.up_proj", "lm_head")), CPU)
    assert len(model.trained) == 4
