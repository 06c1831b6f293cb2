"""A stranger's config.json as transformers' own config class, without letting it choose what runs or how much."""

import re
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from app.core.errors import without_paths

KEY_FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
"""Without these there is no text model; all are above zero."""

_LIMITS = (
    (re.compile(r"layers?$|layers?_|depth|blocks$|stages$"), 1024),
    (re.compile(r"experts?"), 8192),
    (re.compile(r"heads?|groups?$"), 1 << 16),
    (re.compile(r"size|dim|width|rank|channels|inner|embd"), 1 << 24),
)
"""What an integer may be at most, by its field's name: the first that matches. Several times any known model's."""

_DROPPED = {
    # Where code, kernels and loops come from, or what is judged elsewhere; none of it has to do with shapes.
    "attn_implementation",
    "auto_map",
    "compression_config",
    "dtype",
    "experts_implementation",
    "gradient_checkpointing",
    "id2label",
    "label2id",
    "num_labels",
    "per_layer_config",
    "quantization_config",
    "torch_dtype",
    "transformers_weights",
}


class ConfigRefused(ValueError):
    """The config's values make no model. The text says what was found, `expected` what would do."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(found, expected)
        self.found, self.expected = found, expected


def is_known(model_type: object) -> bool:
    """Whether transformers has a config class of its own for this model_type."""
    return isinstance(model_type, str) and model_type in CONFIG_MAPPING


def load_config(fields: dict[str, Any]) -> Any:
    """The config object, of a model_type that is known. Raises ConfigRefused."""
    kept = _kept(fields)
    _check_sizes(kept)
    config_class = CONFIG_MAPPING[fields["model_type"]]
    try:
        config = config_class(**kept)
        text = config.get_text_config()
    except Exception as error:  # whatever a class does with values it never expected
        reason = " ".join(without_paths(str(error)).split())
        raise ConfigRefused(reason, f"values that transformers' {config_class.__name__} accepts") from None
    for field in KEY_FIELDS:
        value = getattr(text, field, None)
        if type(value) is not int or value < 1:
            raise ConfigRefused(f"{field} {value}", "a number above 0")
    return config


def _kept(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _kept(inner) for name, inner in value.items() if name not in _DROPPED and not name.startswith("_")
        }
    return value


def _check_sizes(value: Any, name: str = "") -> None:
    """Config classes make a list item and models a module for each layer, before anything could stop them."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_sizes(inner, key)
    elif isinstance(value, list):
        if len(value) > 1 << 16:
            raise ConfigRefused(f"{name} with {len(value)} items", f"at most {1 << 16} items")
        for inner in value:
            _check_sizes(inner, name)
    elif isinstance(value, int | float):
        limit = next((limit for pattern, limit in _LIMITS if pattern.search(name)), None)
        if limit is not None and abs(value) > limit:
            raise ConfigRefused(f"{name} {value}", f"at most {limit}")
