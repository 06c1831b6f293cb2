"""What a unit needs of its machine, as far as it is known before one runs."""

from dataclasses import dataclass

from app.core.findings import Facts
from app.core.servable import Shape, shape_of
from app.core.specs import SHORTEST_TOKENS, USUAL_LENGTH_TOKENS, EndpointSpec, Precision

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


def length_tokens(wished: int | None, facts: Facts, usual_tokens: int = USUAL_LENGTH_TOKENS) -> int:
    """The longest prompt plus answer of an endpoint's units: what is wished for, else the base model's usual length,
    or what the weights were made for where that is less.
    """
    return wished or max(SHORTEST_TOKENS, min(usual_tokens, facts.max_length_tokens or usual_tokens))


def needs_of(
    spec: EndpointSpec,
    facts: Facts,
    stored_bytes: int = 0,
    parameters_b: float | None = None,
    usual_tokens: int = USUAL_LENGTH_TOKENS,
) -> Needs:
    """Of an endpoint's units: by what its model's validation found out, else by what its files take.

    `stored_bytes`: of its files, 0 while there are none; `parameters_b`: the base model's size in billions;
    `usual_tokens`: the base model's usual length.
    """
    return Needs(
        shape=shape_of(spec.precision, facts),
        weights_bytes=_weights(spec.precision, facts, stored_bytes, parameters_b),
        kv_bytes=_kv(facts, length_tokens(spec.max_model_len, facts, usual_tokens)),
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
