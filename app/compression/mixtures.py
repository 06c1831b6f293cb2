"""Mixtures of experts as llm-compressor takes them: each expert's matrices are linear layers of their own.

transformers has the experts of a layer in one tensor each; files have them apart, and so have quantized ones to stay.
"""

import contextlib
import sys
from collections.abc import Iterator

from compressed_tensors.utils import patch_attr
from llmcompressor.modeling.moe.conversion_mappings import get_linearize_load_mappings, has_linearize_load_mappings
from llmcompressor.modeling.moe.linear_experts import LinearExperts2D
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping


@contextlib.contextmanager
def linear_experts(model_type: str) -> Iterator[None]:
    """Models of this type that are built or loaded within have them; of other types nothing changes."""
    if not has_linearize_load_mappings(model_type):
        yield
        return
    experts, loading, _ = get_linearize_load_mappings(model_type)
    usual = get_checkpoint_conversion_mapping(model_type)
    linear = LinearExperts2D.get_linear_experts_cls(experts)
    # A class of its own that makes them: transformers begins the weights of whatever is of the class of that name.
    made = type(experts.__name__, (), {"__new__": lambda _, *args, **options: linear(*args, **options)})
    # Not by transformers' own patches: they look into every module of it, and some of those need torchvision.
    with patch_attr(sys.modules[experts.__module__], experts.__name__, made):
        register_checkpoint_conversion_mapping(model_type, loading, overwrite=True)
        try:
            yield
        finally:
            register_checkpoint_conversion_mapping(model_type, usual or [], overwrite=True)
