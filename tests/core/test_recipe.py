"""Which recipe a model gets for its targets, why, and which wishes are refused with what words."""

from typing import Any

import pytest

from app.core.compression_memory import layer_bytes, memory_problem, predict_peak_bytes, tensor_bytes
from app.core.compression_spec import CompressionWish
from app.core.errors import InvalidField
from app.core.recipe import Recipe, choose_recipe, linear_layers
from app.core.specs import CPU_SMALL, MachineType

H100 = MachineType(name="h100", accelerator="H100", accelerator_count=1)
L4 = MachineType(name="l4", accelerator="L4", accelerator_count=1)
V100 = MachineType(name="v100", accelerator="V100", accelerator_count=1)
FOUR_H100 = MachineType(name="h100-4", accelerator="H100", accelerator_count=4)


def llama(hidden: int, inner: int, keys: int, layers: int = 2) -> dict[str, tuple[int, int]]:
    found = {"lm_head": (1000, hidden)}
    for number in range(layers):
        at = f"model.layers.{number}"
        found |= {f"{at}.self_attn.{name}_proj": (hidden, hidden) for name in "qo"}
        found |= {f"{at}.self_attn.{name}_proj": (keys, hidden) for name in "kv"}
        found |= {f"{at}.mlp.{name}_proj": (inner, hidden) for name in ("gate", "up")}
        found[f"{at}.mlp.down_proj"] = (hidden, inner)
    return found


WHOLE = llama(256, 512, 128)
SMOLLM2 = llama(576, 1536, 192)


def choose(layers: dict[str, tuple[int, int]], *targets: MachineType, **wish: Any) -> Recipe:
    return choose_recipe(CompressionWish.model_validate(wish), layers, targets)


def test_linear_layers_are_matrices_that_are_no_embeddings():
    tensors = {
        "model.embed_tokens.weight": (1000, 64), "model.layers.0.self_attn.q_proj.weight": (64, 64),
        "model.layers.0.self_attn.q_proj.bias": (64,), "model.norm.weight": (64,), "lm_head.weight": (1000, 64),
        "transformer.wte.weight": (1000, 64),
    }  # fmt: skip
    assert linear_layers(tensors) == {"model.layers.0.self_attn.q_proj": (64, 64), "lm_head": (1000, 64)}


def test_smoothquant_has_a_strength_and_a_scale_for_each_row():
    recipe = choose(SMOLLM2, CPU_SMALL, precision="SmoothQuant-W8A8")
    assert (recipe.migration_strength, recipe.scaled_by, recipe.activations) == (0.5, "channel", "int8")
    assert (recipe.keep, recipe.group_size, recipe.block) == (("lm_head",), None, None)
    assert (recipe.calibration_samples, recipe.calibration_length) == (128, 512)
    assert recipe.origins["migration_strength"] == "default"
    given = choose(SMOLLM2, precision="SmoothQuant-W8A8", migration_strength=0.8, calibration_samples=8)
    assert (given.migration_strength, given.calibration_samples) == (0.8, 8)
    assert (given.origins["migration_strength"], given.origins["calibration_samples"]) == ("given", "given")


@pytest.mark.parametrize(("layers", "size"), [(WHOLE, 128), (SMOLLM2, 64), (llama(96, 192, 32), 32)])
def test_the_group_size_divides_every_width(layers: dict[str, tuple[int, int]], size: int):
    recipe = choose(layers, CPU_SMALL, precision="AWQ-W4A16")
    assert (recipe.group_size, recipe.scaled_by) == (size, "group")
    assert "divides every width" in recipe.origins["group_size"]


def test_groups_are_whole_on_every_card():
    assert choose(WHOLE, H100, precision="AWQ-W4A16").group_size == 128
    recipe = choose(WHOLE, FOUR_H100, precision="AWQ-W4A16")  # 256 columns of o_proj, spread over four cards
    assert recipe.group_size == 64
    assert "4 cards" in recipe.origins["group_size"]


def test_fp8_is_laid_out_for_who_serves_it():
    assert choose(WHOLE, CPU_SMALL, precision="W8A8_FP8").block == (128, 128)
    assert choose(WHOLE, CPU_SMALL, H100, precision="W8A8_FP8").scaled_by == "block"
    assert choose(WHOLE, H100, L4, precision="W8A8_FP8").scaled_by == "channel"
    assert choose(WHOLE, precision="W8A8_FP8").scaled_by == "block"
    mixed = choose(SMOLLM2, CPU_SMALL, H100, precision="W8A8_FP8")
    assert mixed.scaled_by == "channel"
    assert "not for cpu-small: precision W8A8_FP8 on a CPU needs widths" in mixed.origins["scaled_by"]
    assert not mixed.needs_calibration
    assert choose(SMOLLM2, H100, precision="W8A8_FP8", recipe={"fp8_layout": "tensor"}).scaled_by == "tensor"


def test_w4a8_computes_as_its_targets_do():
    assert choose(WHOLE, CPU_SMALL, precision="W4A8").activations == "int8"
    assert choose(WHOLE, H100, precision="W4A8").activations == "fp8"
    assert choose(WHOLE, H100, CPU_SMALL, precision="W4A8").activations == "int8"


def test_routers_and_what_sees_are_kept_and_so_is_what_is_wished():
    mixture = WHOLE | {
        "model.layers.0.mlp.gate": (8, 256), "model.layers.1.mlp.shared_expert_gate": (1, 256),
        "model.visual.blocks.0.attn.qkv": (768, 256), "model.layers.0.mlp.experts.0.gate_proj": (512, 256),
    }  # fmt: skip
    recipe = choose(mixture, precision="W8A8_FP8", recipe={"keep": ["layers.0.mlp.down_proj"]})
    assert set(recipe.keep) == {
        "lm_head", "model.layers.0.mlp.gate", "model.layers.1.mlp.shared_expert_gate",
        "model.visual.blocks.0.attn.qkv", "model.layers.0.mlp.down_proj",
    }  # fmt: skip
    assert "1 more as given" in recipe.origins["keep"]


REFUSED = [
    (llama(100, 200, 50), (), {"precision": "AWQ-W4A16"}, "precision", "groups of 32 do not divide"),
    (SMOLLM2, (), {"precision": "AWQ-W4A16", "recipe": {"group_size": 128}}, "recipe.group_size", "64, 32"),
    (WHOLE, (), {"precision": "SmoothQuant-W8A8", "recipe": {"group_size": 64}}, "recipe.group_size", "no groups"),
    (WHOLE, (), {"precision": "W4A8", "recipe": {"fp8_layout": "block"}}, "recipe.fp8_layout", "only W8A8_FP8"),
    (SMOLLM2, (CPU_SMALL,), {"precision": "W8A8_FP8"}, "precision", "multiples of 128; q_proj has 576 inputs"),
    (SMOLLM2, (H100,), {"precision": "W8A8_FP8", "recipe": {"fp8_layout": "block"}}, "recipe.fp8_layout", "576"),
    (
        WHOLE,
        (CPU_SMALL,),
        {"precision": "W8A8_FP8", "recipe": {"fp8_layout": "channel"}},
        "recipe.fp8_layout",
        "in blocks only",
    ),
    (WHOLE, (V100, L4), {"precision": "W4A8"}, "precision", "Hopper"),
    (WHOLE, (), {"precision": "AWQ-W4A16", "recipe": {"keep": ["nothing"]}}, "recipe.keep", "no linear layer"),
    (WHOLE, (), {"precision": "AWQ-W4A16", "recipe": {"keep": ["q_proj"]}}, "recipe.keep", "Name both"),
    ({"lm_head": (64, 64)}, (), {"precision": "AWQ-W4A16"}, "recipe.keep", "no layer to quantize"),
]


@pytest.mark.parametrize(("layers", "targets", "wish", "field", "words"), REFUSED)
def test_what_cannot_go_is_refused_with_the_reason(
    layers: dict[str, tuple[int, int]], targets: tuple[MachineType, ...], wish: dict[str, Any], field: str, words: str
):
    with pytest.raises(InvalidField) as refused:
        choose(layers, *targets, **wish)
    assert refused.value.param == field
    assert words in str(refused.value)


def test_samples_are_no_longer_than_the_model_takes():
    wish = CompressionWish(precision="AWQ-W4A16")
    assert choose_recipe(wish, WHOLE, (), longest_tokens=256).calibration_length == 256
    with pytest.raises(InvalidField, match="at most 256"):
        choose_recipe(CompressionWish(precision="AWQ-W4A16", calibration_length=512), WHOLE, (), longest_tokens=256)


LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
    "num_hidden_layers": 32, "vocab_size": 128256,
}  # fmt: skip


def test_memory_grows_with_a_layer_and_the_samples_and_not_with_the_model():
    sizes = tensor_bytes(LLAMA_8B)
    assert sum(sizes.values()) == pytest.approx(8.03e9 * 2, rel=0.1)
    assert max(layer_bytes(sizes).values()) == pytest.approx(436e6, rel=0.02)
    few = predict_peak_bytes("SmoothQuant-W8A8", LLAMA_8B, sizes, 16, 512)
    many = predict_peak_bytes("SmoothQuant-W8A8", LLAMA_8B, sizes, 128, 512)
    assert many - few == pytest.approx(112 * 512 * 4096 * 2, rel=0.2)
    assert many < sum(sizes.values()) / 4
    deeper = predict_peak_bytes("SmoothQuant-W8A8", LLAMA_8B | {"num_hidden_layers": 64}, None, 16, 512)
    assert deeper == pytest.approx(few, rel=0.01)
    assert predict_peak_bytes("AWQ-W4A16", LLAMA_8B, sizes, 128, 512) > 2 * many
    assert predict_peak_bytes("W8A8_FP8", LLAMA_8B, sizes, 0, 0) < 8 << 30


def test_too_little_memory_is_told_with_both_numbers():
    assert memory_problem(1 << 30, 2 << 30, "cpu-small") is None
    told = memory_problem(3 << 30, 2 << 30, "cpu-small") or ""
    assert "3.0 GiB" in told
    assert "cpu-small has 2.0 GiB" in told
