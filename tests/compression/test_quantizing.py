"""Quantizing tiny models of several families, layer by layer: what comes out, how it is told, stopped and gone on with.

Whether a version is any good is a question for models that can do something: see app/compression/quality.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from app.catalog.catalog import Catalog
from app.compression.checkpoint import WeightsUnusable
from app.compression.quantizing import Stopped, quantize
from app.core.job_specs import CompressionProgress
from app.core.servable import servable, shape_of
from app.core.specs import CPU_SMALL, MachineType, Precision
from app.store.local_folder import LocalFolder
from app.weights.quantization import read_scheme
from app.weights.validation import validate
from tests.compression.small_models import (
    divergence,
    random_samples,
    recipe_for,
    run,
    tensors_of,
    write_llama,
)
from tests.weights.sound_folders import write_sound, write_tokenizer

PRECISIONS: tuple[Precision, ...] = ("SmoothQuant-W8A8", "AWQ-W4A16", "W8A8_FP8", "W4A8")
WORST = {"SmoothQuant-W8A8": 0.02, "AWQ-W4A16": 0.6, "W8A8_FP8": 0.15, "W4A8": 0.6}
"""KL, in nats, of a tiny random model; a broken one has several."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("base") / "llama")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_version_computes_what_the_original_does(base: Path, tmp_path: Path, precision: Precision):
    told = run(base, tmp_path / "new", precision)
    assert (told[0].layer, told[-1].layer) == (0, told[-1].layers)
    assert told[-1].s_per_layer is not None
    config = json.loads((tmp_path / "new/config.json").read_bytes())
    scheme = read_scheme(config["quantization_config"])
    assert (scheme.known, scheme.precision) == (True, precision)
    assert scheme.ignored == frozenset({"lm_head"})
    index = json.loads((tmp_path / "new/model.safetensors.index.json").read_bytes())
    assert set(index["weight_map"]) == set(tensors_of(tmp_path / "new"))
    assert divergence(base, tmp_path / "new") < WORST[precision]
    _check_it_is_sound_and_servable(base, tmp_path / "new", precision)


def _check_it_is_sound_and_servable(base: Path, new: Path, precision: Precision) -> None:
    """As the validator and an endpoint's wish see it."""
    write_tokenizer(new)
    entry = Catalog.load().find("Tiny-Llama")
    assert entry
    work = new.with_name("work")
    work.mkdir()
    report = validate(LocalFolder(new), entry, precision, work, (), made_here=True)
    assert report.ok, report.findings
    facts, recipe = report.facts, recipe_for(base, precision)
    assert (facts.scaled_by, facts.group_size, facts.block) == (recipe.scaled_by, recipe.group_size, recipe.block)
    assert facts.activations == recipe.activations
    assert sum(layer.count for layer in facts.linear) == 14
    shape = shape_of(precision, facts)
    assert servable(shape, CPU_SMALL.model_copy(update={"amx": True})) is None
    card = MachineType(name="a100", accelerator="A100", accelerator_count=1)
    assert (servable(shape, card) is None) is (precision in ("SmoothQuant-W8A8", "AWQ-W4A16"))


def test_layers_that_are_kept_are_what_they_were(base: Path, tmp_path: Path):
    wish = {"recipe": {"keep": ["layers.1.mlp.down_proj"]}}
    run(base, tmp_path / "new", "AWQ-W4A16", **wish)
    before, after = tensors_of(base), tensors_of(tmp_path / "new")
    for name in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"):
        assert torch.equal(before[name], after[name])
    assert after["model.layers.1.mlp.down_proj.weight"].dtype == torch.bfloat16
    assert after["model.layers.0.mlp.down_proj.weight_packed"].dtype == torch.int32


def test_tied_embeddings_stay_tied(tmp_path: Path):
    base = write_llama(tmp_path / "base", tie_word_embeddings=True)
    run(base, tmp_path / "new", "SmoothQuant-W8A8")
    assert "lm_head.weight" not in tensors_of(tmp_path / "new")
    assert divergence(base, tmp_path / "new") < WORST["SmoothQuant-W8A8"]


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "mistral", "gemma2", "qwen3-moe"])
def test_other_families(tmp_path: Path, family: str):
    write_sound(family, tmp_path / "base")
    run(tmp_path / "base", tmp_path / "new", "SmoothQuant-W8A8", samples=3)
    assert divergence(tmp_path / "base", tmp_path / "new") < 0.02


def test_a_mixture_whose_experts_lie_in_another_form_is_refused(tmp_path: Path):
    write_sound("mixtral", tmp_path / "base")
    with pytest.raises(WeightsUnusable, match="W8A8_FP8"):
        run(tmp_path / "base", tmp_path / "new", "AWQ-W4A16")


@pytest.mark.parametrize("layout", ["channel", "tensor", "block"])
def test_fp8_in_every_layout(base: Path, tmp_path: Path, layout: str):
    run(base, tmp_path / "new", "W8A8_FP8", recipe={"fp8_layout": layout})
    config = json.loads((tmp_path / "new/config.json").read_bytes())
    assert read_scheme(config["quantization_config"]).strategy == layout
    assert divergence(base, tmp_path / "new") < WORST["W8A8_FP8"]


def stopping(after: int) -> Callable[[CompressionProgress], bool]:
    return lambda progress: progress.layer >= after


@pytest.mark.parametrize("precision", ["SmoothQuant-W8A8", "AWQ-W4A16"])
def test_what_is_stopped_goes_on_behind_the_last_layer_and_ends_alike(tmp_path: Path, precision: str):
    base = write_llama(tmp_path / "base", num_hidden_layers=4)
    run(base, tmp_path / "whole", precision)
    recipe, samples = recipe_for(base, precision), random_samples(6)
    with pytest.raises(Stopped) as stopped:
        quantize(base, tmp_path / "new", recipe, samples, stopping(after=2))
    assert stopped.value.progress.layer == 2
    assert not (tmp_path / "new/config.json").exists()
    first = tmp_path / "new/model-00001-of-00005.safetensors"
    made_at = first.stat().st_mtime_ns
    told: list[int] = []
    quantize(base, tmp_path / "new", recipe, samples, lambda progress: bool(told.append(progress.layer)))
    assert told == [2, 3, 4]
    assert first.stat().st_mtime_ns == made_at
    whole, new = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "new")
    assert whole.keys() == new.keys()
    assert all(torch.equal(whole[name], new[name]) for name in whole)


def test_what_was_made_by_another_recipe_or_of_other_samples_is_made_anew(base: Path, tmp_path: Path):
    for precision, samples in (("SmoothQuant-W8A8", 6), ("SmoothQuant-W8A8", 5), ("W4A8", 5)):
        recipe = recipe_for(base, precision, samples)
        with pytest.raises(Stopped):
            quantize(base, tmp_path / "new", recipe, random_samples(samples), stopping(after=1))
        told: list[int] = []

        def tell(progress: CompressionProgress, told: list[int] = told) -> bool:
            told.append(progress.layer)
            return False

        quantize(base, tmp_path / "new", recipe, random_samples(samples), tell)
        assert told == [1, 2]


def test_files_that_are_not_the_models_are_told(tmp_path: Path):
    base = write_llama(tmp_path / "base")
    (base / "model.safetensors").write_bytes(b"12345678{}")
    with pytest.raises(WeightsUnusable, match="is not a safetensors file"):
        run(base, tmp_path / "new", "W8A8_FP8")
