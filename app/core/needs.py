"""What a unit needs of its machine, as far as it is known before one runs."""

from dataclasses import dataclass

from app.core.findings import Facts
from app.core.servable import Scaled, Shape, shape_of
from app.core.specs import EndpointSpec, Precision

_BF16_BYTES = 2
_BYTES_PER_PARAMETER: dict[Precision, float] = {
    "BF16": 2.0, "W8A8_FP8": 1.0, "SmoothQuant-W8A8": 1.0, "AWQ-W4A16": 0.5, "W4A8": 0.5
}  # fmt: skip
_NAMES_ROUND = 0.9
"""Models are named after rounded sizes: so much of that they surely have."""


@dataclass(frozen=True)
class Needs:
    """Lower bounds, in bytes; None for what is not known, and then nothing is refused for it."""

    shape: Shape
    weights_bytes: int | None = None
    kv_bytes: int | None = None
    """KV cache of one request of full length."""
    kv_cache_bytes: int | None = None
    """The KV cache that the endpoint asks for; None: what its machine type gives."""


def needs_of(
    spec: EndpointSpec,
    facts: Facts,
    stored_bytes: int = 0,
    parameters_b: float | None = None,
    recipe: Scaled | None = None,
    compressed_bytes: int | None = None,
) -> Needs:
    """Of an endpoint's units: by what its model's validation found out, else by what its files take.

    `stored_bytes`: of its files, 0 while there are none; `parameters_b`: the base model's size in billions; `recipe`
    and `compressed_bytes`: how its version was made of the model's weights, and what that one's weights take.
    """
    weights_bytes = compressed_bytes
    if recipe is None or compressed_bytes is None:
        weights_bytes = _weights(spec.precision, facts, stored_bytes, parameters_b)
    return Needs(
        shape=shape_of(spec.precision, facts, recipe),
        weights_bytes=weights_bytes,
        kv_bytes=_kv(facts, spec.max_model_len),
        kv_cache_bytes=spec.engine.kv_cache_bytes,
    )


def weights_in_memory_bytes(stored_bytes: int, parameters: int | None, *, quantized: bool) -> int:
    """Engines hold plain weights in 16 bits, whatever the files have."""
    if quantized or parameters is None:
        return stored_bytes
    return min(stored_bytes, parameters * _BF16_BYTES) if stored_bytes else parameters * _BF16_BYTES


def _weights(precision: Precision, facts: Facts, stored_bytes: int, parameters_b: float | None) -> int | None:
    quantized = precision != "BF16"
    if facts.weights_bytes:
        return weights_in_memory_bytes(facts.weights_bytes, facts.parameters, quantized=quantized)
    named = int(parameters_b * 1e9 * _BYTES_PER_PARAMETER[precision] * _NAMES_ROUND) if parameters_b else None
    if not stored_bytes:
        return named
    if quantized or named is None:
        return stored_bytes
    return min(stored_bytes, named)  # the files may hold 32 bits


def _kv(facts: Facts, length_tokens: int) -> int | None:
    if facts.kv_bytes_per_token is None:
        return None
    in_window = facts.kv_window_bytes_per_token
    windowed = min(length_tokens, facts.kv_window_tokens or length_tokens)
    return (facts.kv_bytes_per_token - in_window) * length_tokens + in_window * windowed
