"""How a model is compressed: every value, and why it is what it is. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from app.core.compression_spec import CompressionWish
from app.core.errors import InvalidField
from app.core.findings import LinearLayer
from app.core.servable import Shape, servable
from app.core.specs import MachineType
from app.core.tuning_spec import Quantized

Layers = Mapping[str, tuple[int, int]]
"""Linear layers by their full names: rows (what comes out) and columns (what goes in)."""
ScaledBy = Literal["channel", "group", "block", "tensor"]
Activations = Literal["int8", "fp8"]

GROUP_SIZES = (128, 64, 32)
"""In this order: the larger, the fewer scales."""
BLOCK = (128, 128)
"""Rows and columns, as DeepSeek's FP8 has them and as every engine's kernels expect them."""
_EMBEDDINGS = ("embed", "wte", "wpe")
_OUTPUTS = ("lm_head", "output_layer", "embed_out")
_ROUTERS = ("gate", "router", "shared_expert_gate", "wg")
"""Last parts of the names of what chooses a mixture's experts: small, and a wrong choice costs all that follows."""
_TOWERS = ("vision_tower", "vision_model", "visual", "multi_modal_projector", "audio_tower", "embed_vision")
_FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))
"""Layers that engines make one of: all or none of them are quantized."""


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


def linear_layers(tensors: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, int]]:
    """The linear layers among tensors of a checkpoint, given by names and shapes: matrices that are no embeddings."""
    found: dict[str, tuple[int, int]] = {}
    for name, shape in tensors.items():
        layer, _, last = name.rpartition(".")
        if last == "weight" and len(shape) == 2 and not any(part in _last(layer) for part in _EMBEDDINGS):
            found[layer] = (shape[0], shape[1])
    return found


def choose_recipe(
    spec: CompressionWish,
    layers: Layers,
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
    values: dict[str, Any] = {"precision": spec.precision, "keep": keep, "migration_strength": spec.strength}
    told = "given" if spec.migration_strength is not None else "default"
    origins["migration_strength"] = told if spec.strength is not None else "not of this precision"
    form, why = _chosen(spec, quantized, targets)
    values |= {"scaled_by": form.scaled_by, "activations": form.activations}
    values |= {"group_size": form.group_size, "block": form.block}
    origins[{"group": "group_size", "block": "block"}.get(form.scaled_by, "scaled_by")] = why
    origins.setdefault("scaled_by", why if spec.precision == "W8A8_FP8" else "what the precision says")
    origins.setdefault("group_size", "not scaled by group")
    origins.setdefault("block", "not scaled by block")
    origins.setdefault("activations", "what the precision says")
    return Recipe(**values, **_calibration(spec, longest_tokens, origins), origins=origins)


def _kept(spec: CompressionWish, layers: Layers) -> tuple[tuple[str, ...], str]:
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


@dataclass(frozen=True)
class _Form:
    """One of the ways in which the weights of a precision may be laid out."""

    scaled_by: ScaledBy
    group_size: int | None = None
    block: tuple[int, int] | None = None
    activations: Activations | None = None

    def __str__(self) -> str:
        if self.group_size:
            return f"groups of {self.group_size}" + (
                f" with {self.activations} activations" if self.activations else ""
            )
        return f"one scale per {self.scaled_by}"


def _forms(spec: CompressionWish, *, wished: bool, served: bool) -> list[_Form]:
    """Best first: all that there are or, if `wished`, those that go with the wishes; `served`: targets are known."""
    sizes: Sequence[int] = GROUP_SIZES
    if wished and spec.recipe.group_size is not None:
        sizes = (spec.recipe.group_size,)
    match spec.precision:
        case "SmoothQuant-W8A8":
            return [_Form("channel", activations="int8")]
        case "AWQ-W4A16":
            return [_Form("group", group_size=size) for size in sizes]
        case "W4A8":
            kinds: tuple[Activations, ...] = ("int8", "fp8")
            return [_Form("group", group_size=size, activations=kind) for kind in kinds for size in sizes]
    layouts: tuple[ScaledBy, ...] = ("channel", "block") if served else ("block", "channel")
    if wished and spec.recipe.fp8_layout != "auto":
        layouts = (spec.recipe.fp8_layout,)
    return [_Form(by, block=BLOCK if by == "block" else None, activations="fp8") for by in layouts]


def _chosen(spec: CompressionWish, layers: Layers, targets: Sequence[MachineType]) -> tuple[_Form, str]:
    """The first form that fits the layers and is served by the most targets, and why that one."""
    field = _wished_field(spec)
    forms = _forms(spec, wished=True, served=bool(targets))
    misfits = {form: _misfit(form, layers) for form in forms}
    fitting = [form for form in forms if not misfits[form]]
    if not fitting:
        _refuse_widths(spec, layers, field, misfits[forms[-1]])
    refusals = {form: _refusals(spec, form, layers, targets) for form in fitting}
    best = min(fitting, key=lambda form: len(refusals[form]))
    if targets and len(refusals[best]) == len(targets):
        every = _forms(spec, wished=False, served=True)
        freely = any(len(_refusals(spec, form, layers, targets)) < len(targets) for form in every)
        told = "; ".join(f"{name}: {reason}" for name, reason in refusals[best].items())
        if field and freely:
            raise InvalidField(f"{field} asks for {best}, which no target serves. {told}.", field)
        raise InvalidField(f"precision is {spec.precision}, which no target serves. {told}.", "precision")
    usual = "the largest that divides every width" if best.group_size else "what the targets serve, at the least loss"
    why = ["given" if field else usual]
    if best != forms[0] and not field:
        passed = misfits[forms[0]] or next(iter(refusals[forms[0]].values()), "")
        why.append(f"not {forms[0]}: {passed}")
    why += [f"not for {name}: {reason}" for name, reason in refusals[best].items()]
    return best, "; ".join(why)


def _wished_field(spec: CompressionWish) -> str:
    """The field that says how weights are laid out, "" for none. Raises InvalidField where it has no meaning."""
    if spec.recipe.group_size is not None:
        if spec.precision not in ("AWQ-W4A16", "W4A8"):
            raise InvalidField(
                f"recipe.group_size is {spec.recipe.group_size}, but {spec.precision} has no groups: leave it out.",
                "recipe.group_size",
            )
        return "recipe.group_size"
    if spec.recipe.fp8_layout != "auto":
        if spec.precision != "W8A8_FP8":
            raise InvalidField(
                f"recipe.fp8_layout is {spec.recipe.fp8_layout}, but only W8A8_FP8 has one, and precision is "
                f"{spec.precision}: leave it out.",
                "recipe.fp8_layout",
            )
        return "recipe.fp8_layout"
    return ""


def _refuse_widths(spec: CompressionWish, layers: Layers, field: str, misfit: str) -> None:
    if field == "recipe.fp8_layout":
        raise InvalidField(f"recipe.fp8_layout is block, but {misfit}. Choose channel or tensor.", field)
    fitting = [size for size in GROUP_SIZES if not _misfit(_Form("group", group_size=size), layers)]
    if field:
        told = ", ".join(map(str, fitting)) or "none"
        raise InvalidField(f"{field} is {spec.recipe.group_size}, but {misfit}. Sizes that do: {told}.", field)
    raise InvalidField(
        f"precision {spec.precision} has groups of {', '.join(map(str, GROUP_SIZES))} weights, but {misfit}. Choose "
        "another precision, or keep that layer by recipe.keep.",
        "precision",
    )


def _misfit(form: _Form, layers: Layers) -> str:
    """Which layer is not divided evenly; "" for none."""
    rows, columns = form.block or (1, form.group_size or 1)
    for name, shape in layers.items():
        if shape[0] % rows or shape[1] % columns:
            what = f"blocks of {rows} x {columns}" if form.block else f"groups of {columns}"
            return f"{name} is {shape[0]} x {shape[1]}, which {what} do not divide"
    return ""


def _refusals(spec: CompressionWish, form: _Form, layers: Layers, targets: Sequence[MachineType]) -> dict[str, str]:
    """Target -> why it cannot serve this form; where it can serve none, why that is so."""
    counts = Counter((_last(name), *shape) for name, shape in layers.items())
    linear = tuple(LinearLayer(name=n, rows=r, columns=c, count=count) for (n, r, c), count in counts.items())
    experts = any(".experts." in name for name in layers)
    whatever = Shape(spec.precision, linear=linear, experts=experts)
    shape = Shape(
        spec.precision, form.scaled_by, form.group_size, form.block, form.activations, linear, experts=experts
    )
    found = {target.name: (servable(shape, target), target) for target in targets}
    return {name: servable(whatever, target) or why for name, (why, target) in found.items() if why}


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
