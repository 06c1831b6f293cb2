"""The shapes of weights, read from a few kilobytes of each file, and what is planned by them."""

from pathlib import Path

import pytest

from app.core.compression_plan import plan
from app.core.compression_spec import CompressionWish
from app.core.specs import CPU_SMALL
from app.store.local_folder import LocalFolder
from app.weights.safetensors_headers import HeaderError
from app.weights.stored_shapes import read_stored
from tests.weights.safetensors_files import write_tensors

CONFIG = '{"hidden_size": 128, "num_attention_heads": 2, "max_position_embeddings": 256, "vocab_size": 32}'
LAYER = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "model"
    found.mkdir()
    (found / "config.json").write_text(CONFIG)
    write_tensors(found / "a.safetensors", {LAYER: ("BF16", [128, 128])})
    write_tensors(found / "b.safetensors", {"model.embed_tokens.weight": ("BF16", [32, 128])})
    return found


def test_tensors_of_all_files_are_told(folder: Path):
    stored = read_stored(LocalFolder(folder))
    assert stored
    assert stored.shapes == {LAYER: (128, 128), "model.embed_tokens.weight": (32, 128)}
    assert stored.sizes[LAYER] == 128 * 128 * 2
    assert (stored.longest_tokens, stored.quantized) == (256, False)
    planned = plan(CompressionWish(precision="AWQ-W4A16"), stored, [CPU_SMALL])
    assert (planned.recipe.group_size, planned.recipe.calibration_length) == (128, 256)
    assert planned.peak_bytes == max(planned.quantizing_bytes, planned.measuring_bytes)


def test_low_bits_are_seen_whatever_the_config_says(folder: Path):
    write_tensors(folder / "b.safetensors", {LAYER: ("I8", [128, 128])})
    stored = read_stored(LocalFolder(folder))
    assert stored
    assert (stored.low, stored.quantized) == (LAYER, True)


def test_what_there_is_too_much_or_nothing_of_is_left_alone(folder: Path):
    assert read_stored(LocalFolder(folder), most_files=1) is None
    (folder / "config.json").unlink()
    assert read_stored(LocalFolder(folder)) is None


@pytest.mark.parametrize("name", ["config.json", "b.safetensors"])
def test_damage_is_told_with_the_file(folder: Path, name: str):
    (folder / name).write_bytes(b"12345678{")
    with pytest.raises(HeaderError, match=rf"^{name}: "):
        read_stored(LocalFolder(folder))
