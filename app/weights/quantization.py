"""quantization_config: which precision it describes, and how its weights lie in files."""

from dataclasses import dataclass
from typing import Any

from app.core.specs import Precision
from app.weights.safetensors_headers import Shape

LOW_DTYPES = frozenset({"I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4", "I32"})
"""In which no plain weight lies."""

_ACTIVATIONS: dict[tuple[object, ...], str] = {("int", 8): "int8", ("float", 8): "fp8"}
_PRECISIONS: dict[tuple[object, ...], Precision] = {
    # type and bits of weights, type and bits of activations
    ("float", 8, "float", 8): "W8A8_FP8",
    ("int", 8, "int", 8): "SmoothQuant-W8A8",
    ("int", 4, None, None): "AWQ-W4A16",
    ("int", 4, "int", 8): "W4A8",
    ("int", 4, "float", 8): "W4A8",
}


@dataclass(frozen=True)
class Scheme:
    """How the linear layers of a checkpoint are quantized."""

    method: str
    """"compressed-tensors", "awq" or "fp8"; another one is not `known`."""
    description: str
    precision: Precision | None = None
    known: bool = True
    weight_bits: int = 8
    required: tuple[str, ...] = ()
    """What must lie beside each quantized weight, such as weight_scale."""
    strategy: str | None = None
    """What has one scale: "tensor", "channel", "group" or "block"; None where several may."""
    group: Shape = ()
    """(columns) of a group, (rows, columns) of a block."""
    activations: str | None = None
    """"int8" or "fp8"; None: in 16 bits."""
    ignored: frozenset[str] | None = None
    """Modules that stay as they are, when the config names them all; then every other linear one is quantized."""

    @property
    def facts(self) -> dict[str, object]:
        """What decides where such weights can be served, by the names that Facts has for it."""
        return {
            "scaled_by": self.strategy,
            "group_size": self.group[0] if self.strategy == "group" else None,
            "block": (self.group[0], self.group[1]) if self.strategy == "block" else None,
            "activations": self.activations,
        }

    def scale_shapes(self, weight: Shape) -> set[Shape] | None:
        """The shapes that the scale of a weight of this shape may have; None where nothing is known."""
        rows, columns = weight
        match self.strategy:
            case "tensor":
                return {(), (1,)}
            case "channel":
                return {(rows, 1), (rows,)}
            case "group":
                return {(rows, -(-columns // self.group[0]))}
            case "block":
                return {(-(-rows // self.group[0]), -(-columns // self.group[1]))}
        return None


def read_scheme(config: Any) -> Scheme:
    """The scheme of this quantization_config; one that is not `known` where the platform knows no such form."""
    try:
        method = config["quant_method"]
        reader = {"compressed-tensors": _compressed_tensors, "awq": _awq, "fp8": _fp8}.get(method)
        if reader is not None:
            return reader(config)
        return Scheme(str(method), f"quant_method {method}", known=False)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return Scheme("unknown", "a quantization_config that cannot be understood", known=False)


def _compressed_tensors(config: dict[str, Any]) -> Scheme:
    groups = list(config["config_groups"].values())
    kinds = {_kind(group) for group in groups}
    if len(kinds) > 1:
        return Scheme("compressed-tensors", " and ".join(sorted(map(_told, kinds))), known=False)
    (kind,) = kinds
    weights, activations = groups[0]["weights"], groups[0].get("input_activations")
    packed = kind[1] == 4 and "pack" in (groups[0].get("format") or config.get("format") or "pack")
    required = ["weight_scale", *(["weight_shape"] if packed else [])]
    if not weights.get("symmetric", True):
        required.append("weight_zero_point")
    if activations and activations.get("dynamic") is False:
        required.append("input_scale")
    strategy, group = _strategy(weights)
    return Scheme(
        "compressed-tensors",
        _told(kind),
        precision=_PRECISIONS.get(kind),
        weight_bits=weights["num_bits"],
        required=tuple(required),
        strategy=strategy if len(groups) == 1 else None,
        group=group,
        activations=_ACTIVATIONS.get(kind[2:]),
        ignored=_ignored(groups, config.get("ignore") or []),
    )


def _kind(group: dict[str, Any]) -> tuple[object, ...]:
    weights, activations = group["weights"], group.get("input_activations") or {}
    return (weights["type"], weights["num_bits"], activations.get("type"), activations.get("num_bits"))


def _told(kind: tuple[object, ...]) -> str:
    activations = f"{kind[2]}{kind[3]}" if kind[2] else "16-bit"
    return f"compressed-tensors with {kind[0]}{kind[1]} weights and {activations} activations"


def _strategy(weights: dict[str, Any]) -> tuple[str | None, Shape]:
    strategy = weights.get("strategy")
    if strategy == "group":
        return "group", (_positive(weights["group_size"]),)
    if strategy == "block":
        rows, columns = weights["block_structure"]
        return "block", (_positive(rows), _positive(columns))
    return (strategy if strategy in ("tensor", "channel") else None), ()


def _ignored(groups: list[dict[str, Any]], names: list[str]) -> frozenset[str] | None:
    """None where patterns or classes are named: strangers' patterns are not run."""
    every_linear = all(group.get("targets") == ["Linear"] for group in groups)
    plain = all(isinstance(name, str) and (name == "lm_head" or "." in name) and ":" not in name for name in names)
    return frozenset(names) if every_linear and plain else None


def _awq(config: dict[str, Any]) -> Scheme:
    bits, layout = config["bits"], str(config.get("version") or config.get("format") or "gemm").lower()
    description = f"AWQ with {bits}-bit weights, {layout}"
    if bits != 4 or layout != "gemm":
        return Scheme("awq", description, known=False)
    size = config.get("group_size", 128)
    return Scheme(
        "awq",
        description,
        precision="AWQ-W4A16",
        weight_bits=4,
        required=("scales", *(["qzeros"] if config.get("zero_point", True) else [])),
        strategy="group" if size != -1 else "channel",
        group=(_positive(size),) if size != -1 else (),
    )


def _fp8(config: dict[str, Any]) -> Scheme:
    block = config.get("weight_block_size")
    static = config.get("activation_scheme") == "static"
    return Scheme(
        "fp8",
        "FP8 weights in blocks" if block else "FP8 weights",
        precision="W8A8_FP8",
        required=("weight_scale_inv" if block else "weight_scale", *(["input_scale"] if static else [])),
        strategy="block" if block else None,
        group=tuple(_positive(size) for size in block) if block else (),
        activations="fp8",
    )


def _positive(value: object) -> int:
    if type(value) is not int or not 0 < value <= 1 << 24:
        raise ValueError(value)
    return value
