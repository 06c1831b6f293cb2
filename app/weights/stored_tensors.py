"""The tensors of a checkpoint by the weights they stand for: quantized ones count under their plain name and shape."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.weights.quantization import LOW_DTYPES, Scheme
from app.weights.safetensors_headers import HeaderTensor, Shape

_COMPANIONS = {
    "compressed-tensors": (
        "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx", "weight_global_scale", "input_scale",
        "input_zero_point", "input_global_scale", "output_scale", "output_zero_point",
    ),
    "awq": ("scales", "qzeros", "g_idx"),
    "fp8": ("weight_scale_inv", "weight_scale", "input_scale", "input_scale_inv", "activation_scale"),
}  # fmt: skip
_OF_THE_CACHE = ("k_scale", "v_scale", "q_scale", "k_zero_point", "v_zero_point")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One weight, plain or quantized."""

    name: str
    """Of the tensor in its file."""
    dtype: str
    shape: Shape
    quantized: bool = False
    per_word: int = 1
    """How many values one stored number holds, along the last dimension."""

    def fits(self, shape: Shape) -> bool:
        """Whether it can be a weight of this shape."""
        if self.per_word == 1:
            return self.shape == shape
        return len(shape) == 2 and self.shape == (shape[0], -(-shape[1] // self.per_word))


@dataclass(frozen=True, slots=True)
class Stored:
    """All weights by their plain names, and what lies beside quantized ones."""

    weights: dict[str, StoredTensor] = field(default_factory=dict)
    companions: dict[str, dict[str, HeaderTensor]] = field(default_factory=dict)
    """By the weight's module, then by their own last names."""


def unpack(tensors: Mapping[str, HeaderTensor], scheme: Scheme | None) -> Stored:
    """Plain tensors as they are; of quantized ones the weights and their companions."""
    stored = Stored()
    companions = (*_COMPANIONS[scheme.method], *_OF_THE_CACHE) if scheme else ()
    for name, tensor in tensors.items():
        module, _, last = name.rpartition(".")
        if last in companions:
            stored.companions.setdefault(module, {})[last] = tensor
        elif scheme and scheme.method == "compressed-tensors" and last == "weight_packed":
            stored.weights[f"{module}.weight"] = StoredTensor(
                name, tensor.dtype, tensor.shape, quantized=True, per_word=32 // scheme.weight_bits
            )
        elif scheme and scheme.method == "awq" and last == "qweight" and len(tensor.shape) == 2:
            # AWQ keeps the transpose: (inputs, outputs / 8).
            shape = (tensor.shape[1] * 32 // scheme.weight_bits, tensor.shape[0])
            stored.weights[f"{module}.weight"] = StoredTensor(name, tensor.dtype, shape, quantized=True)
        else:
            low = last == "weight" and tensor.dtype in LOW_DTYPES
            stored.weights[name] = StoredTensor(name, tensor.dtype, tensor.shape, quantized=bool(scheme) and low)
    return stored


def first_quantized(tensors: Mapping[str, HeaderTensor]) -> str | None:
    """A tensor that only a quantized checkpoint has, or None."""
    for name, tensor in tensors.items():
        last = name.rpartition(".")[2]
        if last in ("qweight", "weight_packed") or (last == "weight" and tensor.dtype in LOW_DTYPES):
            return name
    return None
