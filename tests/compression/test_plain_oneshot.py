"""Layer by layer and with each layer gone through once, the result is llm-compressor's own, bit by bit."""

from pathlib import Path

import pytest
import torch

from tests.compression.small_models import random_samples, recipe_for, run, tensors_of, write_llama


def oneshot_of(base: Path, output: Path, precision: str, samples: int) -> None:
    """As its documentation says; layers hand on what they computed before they were changed."""
    from llmcompressor import oneshot
    from llmcompressor.pipelines.cache import IntermediatesCache
    from torch.utils.data import DataLoader

    from app.compression.modifiers import modifiers

    recipe = recipe_for(base, precision, samples)
    rows = [{"input_ids": torch.tensor([sample])} for sample in random_samples(samples)]
    usual = IntermediatesCache.pin_memory
    IntermediatesCache.pin_memory = lambda cache, number, names=None: None
    try:
        oneshot(
            model=str(base),
            recipe=modifiers(recipe),
            dataset=DataLoader(rows, batch_size=None),
            pipeline="sequential",
            propagate_error=False,
            output_dir=str(output),
        )
    finally:
        IntermediatesCache.pin_memory = usual


@pytest.mark.parametrize("precision", ["SmoothQuant-W8A8", "AWQ-W4A16", "W4A8"])
def test_equal_to_oneshot(tmp_path: Path, precision: str):
    base = write_llama(tmp_path / "base")
    run(base, tmp_path / "ours", precision, samples=4)
    oneshot_of(base, tmp_path / "plain", precision, 4)
    ours, plain = tensors_of(tmp_path / "ours"), tensors_of(tmp_path / "plain")
    assert ours.keys() == plain.keys()
    different = [name for name in ours if not torch.equal(ours[name].float(), plain[name].float())]
    assert not different
