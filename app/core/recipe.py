"""How a model is compressed: every value, and why it is what it is. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from app.core.accelerators import precision_problem
from app.core.compression_spec import CompressionWish
from app.core.errors import InvalidField
from app.core.specs import MachineType
from app.core.tuning_spec import Quantized

Shape = tuple[int, int]
"""Rows (what comes out) and columns (what goes in) of a linear layer."""
ScaledBy = Literal["channel", "group", "block", "tensor"]
Activations = Literal["int8", "fp8"]

GROUP_SIZES = (128, 64, 32)
"""In this order: the larger, the fewer scales; engines serve all three, with FP8 activations the first alone."""
BLOCK = (128, 128)
"""Rows and columns, as DeepSeek's FP8 has them and as every engine's kernels expect them."""
_EMBEDDINGS = ("embed", "wte", "wpe")
_OUTPUTS = ("lm_head", "output_layer", "embed_out")
_ROUTERS = ("gate", "router", "shared_expert_gate", "wg")
"""Last parts of the names of what chooses a mixture's experts: small, and a wrong choice costs all that follows."""
_TOWERS = ("vision_tower", "vision_model", "visual", "multi_modal_projector", "audio_tower", "embed_vision")
_FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))
"""Layers that engines make one of: all or none of them are quantized."""
_ROW_PARALLEL = ("o_proj", "down_proj", "w2", "out_proj", "dense_4h_to_h", "c_proj")
"""Whose columns are spread over cards."""


class Recipe(BaseModel):
    """Stored with the version as recipe.json, beside the weights."""

    model_config = ConfigDict(frozen=True)

    precision: Quantized
    migration_strength: float | None = None
    """Of SmoothQuant-W8A8 alone."""
    group_size: int | None = None
    block: tuple[int, int] | None = None
    scaled_by: ScaledBy
    """What of the weights has one scale."""
    activations: Activations | None = None
    """What they are turned into, token by token, while the model is served; None: they stay as they are."""
    keep: tuple[str, ...] = ()
    """Full names of the layers kept in high precision."""
    calibration_samples: int
    """0: it looks at the weights alone."""
    calibration_length: int
    """Tokens of one sample."""
    origins: dict[str, str] = {}
    """Why each value is what it is."""

    @property
    def needs_calibration(self) -> bool:
        return self.calibration_samples > 0

    def told(self) -> list[str]:
        """A line for each value, for the log."""
        values = self.model_dump(exclude={"origins"})
        return [f"{name}: {value} ({self.origins.get(name, 'given')})" for name, value in values.items()]


def linear_layers(tensors: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """The linear layers among tensors of a checkpoint, given by names and shapes: matrices that are no embeddings."""
    found: dict[str, Shape] = {}
    for name, shape in tensors.items():
        layer, _, last = name.rpartition(".")
        if last == "weight" and len(shape) == 2 and not any(part in _last(layer) for part in _EMBEDDINGS):
            found[layer] = (shape[0], shape[1])
    return found


def choose_recipe(
    spec: CompressionWish,
    layers: Mapping[str, Shape],
    targets: Sequence[MachineType],
    longest_tokens: int | None = None,
) -> Recipe:
    """What is to be done with a model of these linear layers, so that the target machines can serve it.

    Targets that serve the precision in no form are left out of account while another one does. `longest_tokens` is
    the most that the model takes. Raises InvalidField with the reason where nothing goes.
    """
    origins = {"precision": "given"}
    keep, origins["keep"] = _kept(spec, layers)
    quantized = {name: shape for name, shape in layers.items() if name not in set(keep)}
    if not quantized:
        raise InvalidField("recipe.keep leaves no layer to quantize; name fewer of them.", "recipe.keep")
    machines = _serving(spec.precision, targets)
    values: dict[str, Any] = {"precision": spec.precision, "keep": keep, "migration_strength": spec.strength}
    told = "given" if spec.migration_strength is not None else "default"
    origins["migration_strength"] = told if spec.strength is not None else "not of this precision"
    match spec.precision:
        case "SmoothQuant-W8A8":
            values |= {"scaled_by": "channel", "activations": "int8"}
            origins["scaled_by"] = "one scale for each row, as int8 kernels take it"
        case "W8A8_FP8":
            values["activations"] = "fp8"
            values["scaled_by"], origins["scaled_by"] = _layout(spec.recipe.fp8_layout, quantized, machines)
            values["block"] = BLOCK if values["scaled_by"] == "block" else None
            origins["block"] = "what kernels expect" if values["block"] else "not scaled by block"
        case "AWQ-W4A16" | "W4A8":
            values["scaled_by"], origins["scaled_by"] = "group", "4 bits need a scale for every few weights"
            if spec.precision == "W4A8":
                values["activations"], origins["activations"] = _activations(machines)
            sizes = GROUP_SIZES[:1] if values.get("activations") == "fp8" else GROUP_SIZES
            values["group_size"], origins["group_size"] = _group_size(
                spec.recipe.group_size, sizes, quantized, machines
            )
    if spec.recipe.group_size is not None and values["scaled_by"] != "group":
        raise InvalidField(
            f"recipe.group_size is {spec.recipe.group_size}, but {spec.precision} has no groups: leave it out.",
            "recipe.group_size",
        )
    if spec.recipe.fp8_layout != "auto" and spec.precision != "W8A8_FP8":
        raise InvalidField(
            f"recipe.fp8_layout is {spec.recipe.fp8_layout}, but only W8A8_FP8 has one, and precision is "
            f"{spec.precision}: leave it out.",
            "recipe.fp8_layout",
        )
    origins.setdefault("group_size", "not scaled by group")
    origins.setdefault("block", "not scaled by block")
    origins.setdefault("activations", "what the precision says")
    return Recipe(**values, **_calibration(spec, longest_tokens, origins), origins=origins)


def _kept(spec: CompressionWish, layers: Mapping[str, Shape]) -> tuple[tuple[str, ...], str]:
    usual = {"lm_head"} | {  # which may be tied, and is no tensor then
        name
        for name in layers
        if _last(name) in _OUTPUTS + _ROUTERS or any(part in _TOWERS for part in name.split("."))
    }
    wished: set[str] = set()
    for wish in spec.recipe.keep:
        found = {name for name in layers if name == wish or name.endswith(f".{wish}")}
        if not found:
            raise InvalidField(
                f"recipe.keep names {wish!r}, and no linear layer of the model has a name that ends so. Write the last "
                f"parts of a name, such as {_examples(layers)}.",
                "recipe.keep",
            )
        wished |= found
    for name in wished - usual:
        torn = [other for other in _fused_with(name) if other in layers and other not in wished]
        if torn:
            raise InvalidField(
                f"recipe.keep keeps {name} but not {torn[0]}, and engines make one layer of them. Name both.",
                "recipe.keep",
            )
    why = "output layer, and what routes or sees"
    return tuple(sorted(usual | wished)), f"{why}; {len(wished)} more as given" if wished else why


def _fused_with(name: str) -> Iterable[str]:
    rest = name.removesuffix(_last(name))
    return (rest + other for group in _FUSED if _last(name) in group for other in group if other != _last(name))


def _serving(precision: Quantized, targets: Sequence[MachineType]) -> list[MachineType]:
    """Those that serve the precision in some form. Raises InvalidField when there are targets and none does."""
    reasons = []
    found = []
    for machine in targets:
        problem = precision_problem(precision, machine.accelerator, machine.accelerator_count)
        if machine.precisions is not None and precision not in machine.precisions:
            problem = f"precision {precision} is not served on {machine.name}"
        if problem is None:
            found.append(machine)
        else:
            reasons.append(f"{machine.name}: {problem}")
    if targets and not found:
        raise InvalidField(f"precision is {precision}, which no target serves. {'; '.join(reasons)}.", "precision")
    return found


def _layout(wish: str, layers: Mapping[str, Shape], machines: Sequence[MachineType]) -> tuple[ScaledBy, str]:
    cpus = [machine.name for machine in machines if not machine.accelerator_count]
    misfit = _misfit(layers)
    if wish == "block" and misfit:
        raise InvalidField(f"recipe.fp8_layout is block, but {misfit}. Choose channel or tensor.", "recipe.fp8_layout")
    if wish in ("channel", "tensor") and cpus and len(cpus) == len(machines):
        raise InvalidField(
            f"recipe.fp8_layout is {wish}, but the only targets are CPUs ({', '.join(cpus)}), which serve FP8 in "
            "blocks. Choose auto or block.",
            "recipe.fp8_layout",
        )
    if wish in ("block", "channel", "tensor"):
        return wish, "given"  # type: ignore[return-value]  # mypy does not narrow by membership
    if cpus and not misfit:
        return "block", f"{', '.join(cpus)} has no accelerator, and CPUs serve FP8 in blocks only"
    if cpus and len(cpus) == len(machines):
        raise InvalidField(
            f"precision is W8A8_FP8, which CPUs serve in blocks only, but {misfit}. Choose SmoothQuant-W8A8, or a "
            "machine type with an accelerator that has FP8.",
            "precision",
        )
    if cpus:
        return "channel", f"not block, though {', '.join(cpus)} would need it: {misfit}"
    if machines:
        return "channel", "a scale for each row loses least, and accelerators with FP8 serve it"
    return ("channel", f"not block: {misfit}") if misfit else ("block", "no targets: what every engine serves")


def _misfit(layers: Mapping[str, Shape]) -> str:
    """Which layer has no whole blocks; empty: all have."""
    for name, (rows, columns) in layers.items():
        if rows % BLOCK[0] or columns % BLOCK[1]:
            return f"{name} is {rows} x {columns}, which blocks of {BLOCK[0]} x {BLOCK[1]} do not divide"
    return ""


def _group_size(
    wish: int | None, sizes: Sequence[int], layers: Mapping[str, Shape], machines: Sequence[MachineType]
) -> tuple[int, str]:
    cards = max((mode.tensor_parallel_size for machine in machines for mode in machine.modes), default=1)

    def misfit(size: int, parts: int) -> str:
        for name, (_, columns) in layers.items():
            if columns % (size * (parts if _last(name) in _ROW_PARALLEL else 1)):
                return name
        return ""

    allowed = [size for size in sizes if not misfit(size, 1)]
    if wish is not None:
        if name := misfit(wish, 1):
            fitting = ", ".join(map(str, allowed)) or "none"
            raise InvalidField(
                f"recipe.group_size is {wish}, which does not divide the {layers[name][1]} columns of {name}. Sizes "
                f"that do: {fitting}.",
                "recipe.group_size",
            )
        return wish, "given"
    if not allowed:
        name = misfit(sizes[-1], 1)
        raise InvalidField(
            f"precision has groups of weights, but none of {', '.join(map(str, sizes))} divides the "
            f"{layers[name][1]} columns of {name}. Choose another precision, or keep that layer by recipe.keep.",
            "precision",
        )
    spread = [size for size in allowed if not misfit(size, cards)]
    if spread and cards > 1:
        return spread[0], f"the largest that divides every width, spread over {cards} cards too"
    return allowed[0], "the largest that divides every width"


def _activations(machines: Sequence[MachineType]) -> tuple[Activations, str]:
    if machines and all(machine.accelerator_count for machine in machines):
        return "fp8", "all targets have accelerators, which compute W4A8 in FP8"
    return "int8", "what CPUs compute"


def _calibration(spec: CompressionWish, longest_tokens: int | None, origins: dict[str, str]) -> dict[str, int]:
    if spec.precision == "W8A8_FP8":
        origins |= dict.fromkeys(("calibration_samples", "calibration_length"), "weights only: nothing to calibrate")
        return {"calibration_samples": 0, "calibration_length": 0}
    given = spec.model_fields_set
    for name in ("calibration_samples", "calibration_length"):
        origins[name] = "given" if name in given else "default"
    length = spec.calibration_length
    if longest_tokens is not None and length > longest_tokens:
        if "calibration_length" in given:
            raise InvalidField(
                f"calibration_length is {length}. The model takes at most {longest_tokens}.", "calibration_length"
            )
        length, origins["calibration_length"] = longest_tokens, "what the model takes"
    return {"calibration_samples": spec.calibration_samples, "calibration_length": length}


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _examples(layers: Iterable[str]) -> str:
    return ", ".join(list(dict.fromkeys(_last(name) for name in layers))[:4])
