"""Every combination of precision, shape and machine that cannot be served is refused, with the reason."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any, get_args

import pytest

from app.core.compression_spec import CompressionWish
from app.core.errors import InvalidField
from app.core.findings import Facts, LinearLayer
from app.core.recipe import choose_recipe
from app.core.servable import CPU_HEAD_DIMS, Shape, servable, shape_of
from app.core.specs import CPU_SMALL, GPU_1, DeploymentMode, MachineType, Precision

AMX = CPU_SMALL.model_copy(update={"name": "cpu-amx", "amx": True})
NO_AMX = CPU_SMALL.model_copy(update={"name": "cpu-old", "amx": False})


def card(kind: str | None, count: int = 1) -> MachineType:
    modes = (DeploymentMode(tensor_parallel_size=count),)
    return MachineType(name=f"{kind}-{count}".lower(), accelerator=kind, accelerator_count=count, modes=modes)


V100, T4, A100, L4, H100, B200 = map(card, ("V100", "T4", "A100", "L4", "H100", "B200"))


def layers(**shapes: tuple[int, int]) -> tuple[LinearLayer, ...]:
    """Last names and their (outputs, inputs)."""
    return tuple(LinearLayer(name=name, rows=rows, columns=columns) for name, (rows, columns) in shapes.items())


def llama(hidden: int, inner: int, key_value: int) -> tuple[LinearLayer, ...]:
    square, narrow = (hidden, hidden), (key_value, hidden)
    return layers(
        q_proj=square, k_proj=narrow, v_proj=narrow, o_proj=square,
        gate_proj=(inner, hidden), up_proj=(inner, hidden), down_proj=(hidden, inner),
    )  # fmt: skip


SMOLLM = llama(576, 1536, 192)
EVEN = llama(4096, 14336, 1024)
SHAPES = {
    "bf16": Shape("BF16"),
    "sq": Shape("SmoothQuant-W8A8", scaled_by="channel", activations="int8"),
    "awq-64": Shape("AWQ-W4A16", scaled_by="group", group_size=64),
    "awq-80": Shape("AWQ-W4A16", scaled_by="group", group_size=80),
    "fp8-block": Shape("W8A8_FP8", scaled_by="block", block=(128, 128), activations="fp8"),
    "fp8-channel": Shape("W8A8_FP8", scaled_by="channel", activations="fp8"),
    "fp8-tensor": Shape("W8A8_FP8", scaled_by="tensor", activations="fp8"),
    "w4a8-int": Shape("W4A8", scaled_by="group", group_size=64, activations="int8"),
    "w4a8-fp8": Shape("W4A8", scaled_by="group", group_size=128, activations="fp8"),
}
MACHINES = {"amx": AMX, "no-amx": NO_AMX, "v100": V100, "t4": T4, "a100": A100, "l4": L4, "h100": H100, "b200": B200}
SERVED = {
    # on which machines layers of SmolLM's widths and those of an 8B model are served: "-" neither, "8" only the latter
    #               amx  no-amx v100 t4   a100 l4   h100 b200
    "bf16":        ["+", "+", "+", "+", "+", "+", "+", "+"],
    "sq":          ["+", "+", "-", "+", "+", "+", "+", "-"],
    "awq-64":      ["+", "+", "-", "+", "+", "+", "+", "+"],
    "awq-80":      ["-", "-", "-", "-", "-", "-", "-", "-"],
    "fp8-block":   ["8", "-", "-", "-", "-", "8", "8", "8"],
    "fp8-channel": ["-", "-", "-", "-", "-", "+", "+", "+"],
    "fp8-tensor":  ["-", "-", "-", "-", "-", "+", "+", "+"],
    "w4a8-int":    ["+", "+", "-", "-", "-", "-", "-", "-"],
    "w4a8-fp8":    ["-", "-", "-", "-", "-", "-", "8", "-"],
}  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("form", SERVED)
def test_every_combination(form: str, machine: str):
    verdict = SERVED[form][list(MACHINES).index(machine)]
    for linear, served in ((SMOLLM, verdict == "+"), (EVEN, verdict in "8+")):
        shape = replace(SHAPES[form], linear=linear, heads=8, head_dim=64)
        reason = servable(shape, MACHINES[machine])
        assert (reason is None) is served, reason
        if reason:
            assert shape.precision in reason


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("machine", [CPU_SMALL, AMX, GPU_1, card("Some-New-Card")], ids=lambda machine: machine.name)
def test_what_is_not_known_is_not_refused_there(precision: Precision, machine: MachineType):
    assert servable(Shape(precision), machine) is None


@pytest.mark.parametrize(
    ("shape", "machine", "reason"),
    [
        (
            SHAPES["fp8-channel"], AMX,
            "precision W8A8_FP8 with one scale per channel needs an accelerator; a CPU serves it in blocks only",
        ),
        (
            replace(SHAPES["fp8-block"], linear=SMOLLM), AMX,
            "precision W8A8_FP8 on a CPU needs widths that are multiples of 128; q_proj has 576 inputs and 576 outputs",
        ),
        (
            replace(SHAPES["fp8-block"], linear=EVEN), NO_AMX,
            "precision W8A8_FP8 needs an accelerator, or a CPU with AMX (Sapphire Rapids or newer)",
        ),
        (
            replace(SHAPES["fp8-block"], block=(128, 64)), AMX,
            "precision W8A8_FP8 in blocks of 128 x 64 needs an accelerator; a CPU serves blocks of 128 inputs and a "
            "multiple of 32 outputs",
        ),
        (
            replace(SHAPES["awq-80"], group_size=128, linear=SMOLLM), AMX,
            "precision AWQ-W4A16 in groups of 128 needs inputs that are multiples of it; q_proj has 576 inputs and "
            "576 outputs",
        ),
        (
            replace(SHAPES["awq-80"], group_size=96, linear=layers(o_proj=(96, 96))), H100,
            "precision AWQ-W4A16 in groups of 96 is served by no card; groups may be of 32, 64, 128, 256",
        ),
        (
            replace(SHAPES["awq-64"], group_size=15), AMX,
            "precision AWQ-W4A16 in groups of 15 needs an accelerator; a CPU serves groups of an even size",
        ),
        (
            replace(SHAPES["awq-64"], group_size=24, linear=layers(o_proj=(64, 48))), AMX,
            "precision AWQ-W4A16 on a CPU needs inputs that are a multiple of 32; o_proj has 48 inputs and 64 outputs",
        ),
        (
            replace(SHAPES["awq-64"], linear=layers(o_proj=(48, 64))), AMX,
            "precision AWQ-W4A16 on a CPU needs outputs that are a multiple of 32; o_proj has 64 inputs and 48 outputs",
        ),
        (
            SHAPES["w4a8-int"], H100,
            "precision W4A8 with int8 activations is served on a CPU only; cards serve it with FP8 activations",
        ),
        (
            SHAPES["w4a8-fp8"], AMX,
            "precision W4A8 with FP8 activations needs an accelerator of Hopper, such as H100 or H200",
        ),
        (
            replace(SHAPES["w4a8-int"], experts=True), AMX,
            "precision W4A8 with experts is served by neither this kind of CPU nor cards; keep them in high precision",
        ),
        (
            replace(SHAPES["sq"], experts=True), NO_AMX,
            "experts in SmoothQuant-W8A8 need an accelerator, or a CPU with AMX (Sapphire Rapids or newer)",
        ),
        (
            SHAPES["sq"], B200,
            "precision SmoothQuant-W8A8 needs an accelerator of Turing to Hopper, such as T4, A100 or H100; this one "
            "has B200",
        ),
        (
            Shape("BF16", head_dim=16), NO_AMX,
            "attention heads of 16 need an accelerator; a CPU serves heads of 32, 64, 80, 96, 112, 128, 160, 192, 224, "
            "256, 512",
        ),
        (Shape("BF16", heads=9), card("H100", 2), "its 9 attention heads cannot be spread over 2 cards"),
        (
            replace(SHAPES["awq-64"], group_size=128, linear=layers(down_proj=(576, 1536))), card("H100", 8),
            "precision AWQ-W4A16 in groups of 128 cannot be spread over 8 cards; down_proj has 1536 inputs and 576 "
            "outputs",
        ),
        (
            replace(SHAPES["fp8-block"], linear=layers(down_proj=(4096, 11008))), card("H100", 4),
            "precision W8A8_FP8 over 4 cards needs 128 inputs or a multiple on each; down_proj has 11008 inputs and "
            "4096 outputs",
        ),
        (
            replace(SHAPES["fp8-block"], linear=layers(k_proj=(256, 4096))), card("H100", 4),
            "precision W8A8_FP8 over 4 cards needs 128 outputs or a multiple on each; k_proj has 4096 inputs and 256 "
            "outputs",
        ),
    ],
)  # fmt: skip
def test_the_reason_names_what_is_in_the_way(shape: Shape, machine: MachineType, reason: str):
    assert servable(shape, machine) == reason


@pytest.mark.parametrize("head_dim", CPU_HEAD_DIMS)
def test_widths_of_heads_that_a_cpu_serves(head_dim: int):
    assert servable(Shape("BF16", head_dim=head_dim), NO_AMX) is None


def test_layers_that_are_computed_as_one_count_together():
    joined = layers(q_proj=(48, 64), k_proj=(24, 64), v_proj=(24, 64))
    assert servable(replace(SHAPES["awq-64"], linear=joined), AMX) is None
    assert servable(replace(SHAPES["awq-64"], linear=joined[:1]), AMX) is None  # the others are not known


def test_the_last_of_joined_layers_may_end_within_a_block():
    uneven = replace(SHAPES["fp8-block"], linear=layers(v_proj=(192, 512), o_proj=(512, 192)))
    assert servable(uneven, H100) is None
    assert servable(replace(uneven, linear=layers(k_proj=(192, 512))), H100) is not None


def test_what_an_operator_names_is_taken_to_go_with_the_processor_but_not_with_every_shape():
    machine = NO_AMX.model_copy(update={"precisions": ("W8A8_FP8",)})
    assert servable(replace(SHAPES["fp8-block"], linear=EVEN), machine) is None
    assert servable(SHAPES["fp8-channel"], machine) is not None
    assert servable(Shape("BF16"), machine) == f"precision BF16 is not served on {machine.name}; it serves: W8A8_FP8"


def test_a_version_has_the_shape_that_its_facts_tell():
    facts = Facts(linear=EVEN, heads=32, head_dim=128, experts=False, scaled_by="group", group_size=128)
    expected = Shape("W4A8", "group", 128, None, None, EVEN, experts=False, heads=32, head_dim=128)
    assert shape_of("W4A8", facts) == expected


@pytest.mark.parametrize(
    ("precision", "linear", "wishes", "machine", "served"),
    [
        ("W8A8_FP8", EVEN, {}, AMX, True),
        ("W8A8_FP8", SMOLLM, {}, AMX, False),  # only blocks would do, and they do not fit
        ("W8A8_FP8", SMOLLM, {}, H100, True),
        ("W8A8_FP8", EVEN, {"fp8_layout": "channel"}, AMX, False),
        ("W8A8_FP8", EVEN, {}, NO_AMX, False),
        ("AWQ-W4A16", SMOLLM, {"group_size": 128}, AMX, False),
        ("AWQ-W4A16", SMOLLM, {}, AMX, True),
        ("SmoothQuant-W8A8", SMOLLM, {}, NO_AMX, True),
        ("W4A8", SMOLLM, {}, NO_AMX, True),
        ("W4A8", EVEN, {}, H100, True),
        ("W4A8", SMOLLM, {}, H100, False),
        ("W4A8", EVEN, {"group_size": 64}, H100, False),
    ],
)
def test_a_version_that_nobody_could_serve_is_known_before_it_is_made(
    precision: Precision, linear: tuple[LinearLayer, ...], wishes: dict[str, Any], machine: MachineType, served: bool
):
    layers = {f"model.layers.0.{layer.name}": (layer.rows, layer.columns) for layer in linear}
    wish = CompressionWish.model_validate({"precision": precision, "recipe": wishes})
    with nullcontext() if served else pytest.raises(InvalidField):
        choose_recipe(wish, layers, [machine])
