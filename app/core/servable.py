"""Whether vLLM serves weights of a precision and a shape on a machine type, and why not: before anything is started.

Checked against vLLM 0.32. Only what certainly cannot work is refused: of what is not known nothing is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from app.core.accelerators import precision_problem
from app.core.findings import Facts, LinearLayer
from app.core.specs import DeploymentMode, MachineType, Precision

CPU_HEAD_DIMS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""For which vLLM has attention on a CPU."""
CPU_BLOCK = 128
"""FP8 on a CPU: inputs in one block; rows of it are a multiple of CPU_BLOCK_ROWS."""
CPU_BLOCK_ROWS = 32
CPU_TILE = 32
"""Four-bit weights with 16-bit activations on a CPU: widths are multiples of it."""
CARD_GROUPS = (32, 64, 128, 256)
"""Inputs in a group of four-bit weights that some kernel takes on a card."""
HOPPER_GROUP = 128
"""The same for four-bit weights with FP8 activations; widths are multiples of it as well."""

_MERGED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that vLLM computes as one, their outputs side by side."""
_BY_ROWS = ("o_proj", "down_proj")
"""Layers whose inputs are spread over cards that share a unit; of the merged ones the outputs are."""


@dataclass(frozen=True)
class Shape:
    """What of a version decides where it can be served; None and () for what is not known."""

    precision: Precision
    scaled_by: str | None = None
    """See Facts.scaled_by; so are the others."""
    group_size: int | None = None
    block: tuple[int, int] | None = None
    activations: str | None = None
    linear: tuple[LinearLayer, ...] = ()
    """Those that are quantized, or are going to be."""
    experts: bool | None = None
    heads: int | None = None
    head_dim: int | None = None


def shape_of(precision: Precision, facts: Facts) -> Shape:
    """Of a version whose weights these are the facts of."""
    return Shape(
        precision,
        scaled_by=facts.scaled_by,
        group_size=facts.group_size,
        block=facts.block,
        activations=facts.activations,
        linear=facts.linear,
        experts=facts.experts,
        heads=facts.heads,
        head_dim=facts.head_dim,
    )


def servable(shape: Shape, machine: MachineType) -> str | None:
    """Why it cannot be served on such a machine, or None: memory aside, in at least one of the type's modes it can."""
    problems = [mode_problem(shape, machine, mode) for mode in machine.modes]
    return None if None in problems else problems[0]


def mode_problem(shape: Shape, machine: MachineType, mode: DeploymentMode) -> str | None:
    """Why it cannot be served in one of a machine type's modes, or None.

    A precision that the operator names for the machine type is taken to go with its kind of processor.
    """
    if machine.precisions is not None and shape.precision not in machine.precisions:
        allowed = ", ".join(machine.precisions) or "none"
        return f"precision {shape.precision} is not served on {machine.name}; it serves: {allowed}"
    if not machine.accelerator_count:
        return _cpu_problem(shape, amx=machine.amx is not False or machine.precisions is not None)
    kind = precision_problem(shape.precision, machine.accelerator, machine.accelerator_count)
    if machine.precisions is None and kind:
        return kind
    return _card_problem(shape, mode.tensor_parallel_size)


def _cpu_problem(shape: Shape, *, amx: bool) -> str | None:
    precision = shape.precision
    if shape.head_dim is not None and shape.head_dim not in CPU_HEAD_DIMS:
        allowed = ", ".join(map(str, CPU_HEAD_DIMS))
        return f"attention heads of {shape.head_dim} need an accelerator; a CPU serves heads of {allowed}"
    match precision:
        case "W8A8_FP8":
            problem = _cpu_fp8_problem(shape)
        case "AWQ-W4A16":
            problem = _cpu_awq_problem(shape)
        case "W4A8":
            problem = _cpu_w4a8_problem(shape)
        case _:
            problem = None
    if problem:
        return f"precision {precision} {problem}"
    if not amx and precision == "W8A8_FP8":
        return "precision W8A8_FP8 needs an accelerator, or a CPU with AMX (Sapphire Rapids or newer)"
    if not amx and precision != "BF16" and shape.experts:
        return f"experts in {precision} need an accelerator, or a CPU with AMX (Sapphire Rapids or newer)"
    return None


def _cpu_fp8_problem(shape: Shape) -> str | None:
    if shape.scaled_by not in (None, "block"):
        return f"with one scale per {shape.scaled_by} needs an accelerator; a CPU serves it in blocks only"
    rows, columns = shape.block or (CPU_BLOCK, CPU_BLOCK)
    if columns != CPU_BLOCK or rows % CPU_BLOCK_ROWS:
        return (
            f"in blocks of {rows} x {columns} needs an accelerator; a CPU serves blocks of {CPU_BLOCK} inputs and a "
            f"multiple of {CPU_BLOCK_ROWS} outputs"
        )
    uneven = next((layer for layer in shape.linear if layer.rows % rows or layer.columns % columns), None)
    if uneven:
        return f"on a CPU needs widths that are multiples of {_times(rows, columns)}; {_told(uneven)}"
    return None


def _cpu_awq_problem(shape: Shape) -> str | None:
    if shape.group_size is not None and shape.group_size % 2:
        return f"in groups of {shape.group_size} needs an accelerator; a CPU serves groups of an even size"
    if uneven := _undivided(shape):
        return uneven
    for layer in shape.linear:
        if layer.columns % CPU_TILE:
            return f"on a CPU needs inputs that are a multiple of {CPU_TILE}; {_told(layer)}"
    for layers in _computed(shape.linear):
        if sum(layer.rows for layer in layers) % CPU_TILE:
            names = " and ".join(_told(layer) for layer in layers)
            return f"on a CPU needs outputs that are a multiple of {CPU_TILE}; {names}"
    return None


def _cpu_w4a8_problem(shape: Shape) -> str | None:
    if shape.activations == "fp8":
        return "with FP8 activations needs an accelerator of Hopper, such as H100 or H200"
    if shape.experts:
        return "with experts is served by neither this kind of CPU nor cards; keep them in high precision"
    return _undivided(shape)


def _card_problem(shape: Shape, cards: int) -> str | None:
    precision = shape.precision
    if cards > 1 and shape.heads is not None and shape.heads % cards:
        return f"its {shape.heads} attention heads cannot be spread over {cards} cards"
    match precision:
        case "W8A8_FP8":
            problem = _card_block_problem(shape, cards)
        case "AWQ-W4A16":
            problem = _card_group_problem(shape, cards, CARD_GROUPS)
        case "W4A8":
            problem = _card_w4a8_problem(shape, cards)
        case _:
            problem = None
    return f"precision {precision} {problem}" if problem else None


def _card_block_problem(shape: Shape, cards: int) -> str | None:
    if shape.block is None:
        return None
    rows, columns = shape.block
    for layer in shape.linear:
        if cards > 1 and layer.name in _BY_ROWS and layer.columns // cards % columns:
            return f"over {cards} cards needs {columns} inputs or a multiple on each; {_told(layer)}"
        merged = next((group for group in _MERGED if layer.name in group), ())
        if merged and (cards > 1 or layer.name != merged[-1]) and layer.rows // cards % rows:
            on_each = f"over {cards} cards needs {rows} outputs or a multiple on each" if cards > 1 else ""
            return f"{on_each or f'needs outputs that are multiples of {rows}'}; {_told(layer)}"
    return None


def _card_group_problem(shape: Shape, cards: int, groups: Sequence[int]) -> str | None:
    size = shape.group_size
    if size is None:
        return None
    if size not in groups:
        return f"in groups of {size} is served by no card; groups may be of {', '.join(map(str, groups))}"
    if uneven := _undivided(shape):
        return uneven
    for layer in shape.linear:
        if cards > 1 and layer.name in _BY_ROWS and layer.columns // cards % size:
            return f"in groups of {size} cannot be spread over {cards} cards; {_told(layer)}"
    return None


def _card_w4a8_problem(shape: Shape, cards: int) -> str | None:
    if shape.activations == "int8":
        return "with int8 activations is served on a CPU only; cards serve it with FP8 activations"
    if problem := _card_group_problem(shape, cards, (HOPPER_GROUP,)):
        return problem
    for layer in shape.linear:
        if layer.columns % HOPPER_GROUP or layer.rows % HOPPER_GROUP:
            return f"needs widths that are multiples of {HOPPER_GROUP}; {_told(layer)}"
    return None


def _undivided(shape: Shape) -> str | None:
    """A layer whose inputs the groups do not divide."""
    if shape.group_size is None:
        return None
    for layer in shape.linear:
        if layer.columns % shape.group_size:
            return f"in groups of {shape.group_size} needs inputs that are multiples of it; {_told(layer)}"
    return None


def _computed(linear: Sequence[LinearLayer]) -> list[list[LinearLayer]]:
    """The layers as vLLM computes them; merged ones that come in several shapes are left out."""
    names = {name for group in _MERGED for name in group}
    alone = [[layer] for layer in linear if layer.name not in names]
    for group in _MERGED:
        there = [layer for layer in linear if layer.name in group]
        if len(there) == len(group) == len({layer.name for layer in there}):
            alone.append(there)
    return alone


def _times(rows: int, columns: int) -> str:
    return str(rows) if rows == columns else f"{rows} (outputs) and {columns} (inputs)"


def _told(layer: LinearLayer) -> str:
    return f"{layer.name} has {layer.columns} inputs and {layer.rows} outputs"
