"""The quality card: its numbers come out the same in another way, and recipes broken on purpose do not pass."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from app.compression.quality import held_out
from app.compression.quality.measuring import Sample, measure
from app.compression.quality.stopping import Stopped
from app.core.quality import QualityCard, default_gate, failures
from tests.compression import plain_figures
from tests.compression.trained_models import write_int8, write_trained

GATE = default_gate("SmoothQuant-W8A8")
SAMPLE = Sample(texts=4, questions=3, answer_tokens=12, items=4)


def quiet(_: str) -> bool:
    return False


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "original"
    write_trained(folder)
    return folder


@pytest.fixture(scope="module")
def sound(original: Path) -> Path:
    folder = original.parent / "int8"
    write_int8(original, folder)
    return folder


@pytest.fixture(scope="module")
def card(original: Path, sound: Path) -> QualityCard:
    return measure(original, sound, quiet, speed=False, sample=SAMPLE)


def test_numbers_come_out_the_same_in_another_way(card: QualityCard, original: Path, sound: Path):
    before, after = plain_figures.plain_model(original), plain_figures.model_by_hand(original, sound)
    pieces = plain_figures.windows(original, held_out.texts()[: SAMPLE.texts], 1024)
    assert card.held_out_tokens == sum(len(ids) - 1 for ids in pieces)
    assert card.perplexity_before == pytest.approx(plain_figures.perplexity(before, pieces), rel=1e-4)
    assert card.perplexity_after == pytest.approx(plain_figures.perplexity(after, pieces), rel=1e-3)
    assert card.perplexity_before < 100  # of 320 tokens: the model has learnt something
    found = plain_figures.divergences(before, after, pieces)
    assert card.kl_mean == pytest.approx(found.mean(), rel=0.05)
    assert card.kl_p99 == pytest.approx(np.percentile(found, 99), rel=0.1)
    assert found.mean() > 1e-6
    questions = held_out.questions()[: SAMPLE.questions]
    alike, tokens = plain_figures.agreement(before, after, original, questions, SAMPLE.answer_tokens)
    assert card.greedy_tokens == tokens
    assert card.greedy_agreement == pytest.approx(alike / tokens, abs=1.5 / tokens)


def test_sizes_and_origins_are_told(card: QualityCard, original: Path, sound: Path):
    before, after = ((folder / "model.safetensors").stat().st_size for folder in (original, sound))
    assert (card.size_before_bytes, card.size_after_bytes) == (before, after)
    assert card.held_out_sha256 == held_out.sha256()
    assert {"dtype", "kl_positions", "torch", "transformers", "compressed-tensors"} <= card.measured_with.keys()
    assert card.where
    assert (card.tokens_per_s_before, card.load_s_after, card.concurrency) == (None, None, None)
    assert [(probe.name, probe.of) for probe in card.probes] == [(task.name, 4) for task in held_out.tasks()]


def test_a_sound_version_passes(card: QualityCard):
    assert failures(card, GATE) == ()


def test_the_original_beside_itself_has_lost_nothing(original: Path):
    same = measure(original, original, quiet, speed=False, sample=SAMPLE)
    assert same.perplexity_after == same.perplexity_before
    assert (same.kl_mean, same.kl_p99) == pytest.approx((0, 0), abs=1e-6)
    assert (same.greedy_agreement, same.probes_lost) == (1.0, 0.0)


def _one_layer_times_three(layer: str, scale: torch.Tensor) -> torch.Tensor:
    return scale * 3 if layer.endswith("layers.1.mlp.down_proj") else scale


def _rows_rolled(layer: str, scale: torch.Tensor) -> torch.Tensor:
    return scale.roll(7, dims=0) if layer.endswith("q_proj") else scale * 0.5


def _not_a_number(layer: str, scale: torch.Tensor) -> torch.Tensor:
    return torch.full_like(scale, torch.nan) if layer.endswith("layers.0.mlp.up_proj") else scale


@pytest.mark.parametrize("change", [_one_layer_times_three, _rows_rolled, _not_a_number])
def test_a_recipe_broken_on_purpose_is_caught(
    original: Path, tmp_path: Path, change: Callable[[str, torch.Tensor], torch.Tensor]
):
    write_int8(original, tmp_path / "broken", change)
    card = measure(original, tmp_path / "broken", quiet, speed=False, sample=SAMPLE)
    assert failures(card, GATE), card
    assert QualityCard.model_validate_json(card.model_dump_json()) == card  # every figure is finite


def test_it_stops_wherever_it_is_asked_to(original: Path, sound: Path):
    heard: list[str] = []

    def count(what: str) -> bool:
        heard.append(what)
        return False

    measure(original, sound, count, speed=False, sample=Sample(texts=1, questions=1, answer_tokens=2, items=1))
    assert len(set(heard)) == len(heard)
    for number in {0, 1, len(heard) // 2, len(heard) - 1}:
        left = iter([False] * number)
        with pytest.raises(Stopped):
            measure(
                original,
                sound,
                lambda _, left=left: next(left, True),
                speed=False,
                sample=Sample(texts=1, questions=1, answer_tokens=2, items=1),
            )


def test_what_is_held_out_is_whole():
    assert len(held_out.texts()) >= 12
    assert sum(map(len, held_out.texts())) > 12_000
    assert len(held_out.questions()) == 16
    for task in held_out.tasks():
        assert len(task.items) == 12
        for item in task.items:
            assert len(set(item.options)) == len(item.options) >= 2
