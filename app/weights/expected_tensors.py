"""Which tensors a config's model has: transformers builds it without memory, and says how it is written to files."""

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property
from typing import Any

import torch
import transformers
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)
from transformers.initialization import no_init_weights, no_tie_weights

from app.core.errors import without_paths
from app.weights.model_config import ConfigRefused
from app.weights.safetensors_headers import Shape
from app.weights.shard_index import MAX_TENSORS

_MAX_MODULES = 100_000
_MAX_PARAMETERS = 20 * 10**12
_BUILD_S = 20.0

# Computed anew by every loader; old checkpoints have them.
_HARMLESS = (
    r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$",
    r"(^|\.)position_ids$",
    r"\.(attn|attention)\.masked_bias$",
)


class Architecture:
    """The tensors of one model, by their names and shapes in files."""

    def __init__(self, config: Any, class_name: str) -> None:
        """Raises ConfigRefused for a config that makes no such model, or one beyond all bounds."""
        self._model = _build(config, class_name)
        self._state: dict[str, torch.Tensor] = self._model.state_dict()
        experts = sum(tensor.shape[0] for name, tensor in self._state.items() if "expert" in name and tensor.ndim > 2)
        if len(self._state) + experts > MAX_TENSORS:  # experts are one tensor in memory and several each in files
            raise ConfigRefused(f"{experts} experts in all layers", f"at most {MAX_TENSORS} tensors")
        unsaved = self._model._keys_to_ignore_on_save
        saved = {name: tensor for name, tensor in self._state.items() if name not in unsaved}
        on_disk = revert_weight_conversion(self._model, saved)
        self.tensors: dict[str, Shape] = {name: tuple(tensor.shape) for name, tensor in on_disk.items()}
        """As save_pretrained writes them; those that may be left out are among them."""
        self.buffers = frozenset(self._state) - {name for name, _ in self._model.named_parameters()}
        """Not weights; they may have any dtype."""
        self.linear = frozenset(
            f"{name}.weight" for name, module in self._model.named_modules() if isinstance(module, torch.nn.Linear)
        )
        """What quantization replaces unless told otherwise, as far as names in memory and in files are the same."""
        self.may_miss = _matcher(self._model._keys_to_ignore_on_load_missing)
        harmless = (*self._model._keys_to_ignore_on_load_unexpected, *(f"^{re.escape(name)}$" for name in unsaved))
        self.is_harmless = _matcher((*harmless, *_HARMLESS))
        """Whether an unexpected tensor of this name does no harm."""

    @property
    def parameters(self) -> int:
        """Of weights, tied ones counted once."""
        tied = self._model.all_tied_weights_keys
        return sum(
            tensor.numel() for name, tensor in self._state.items() if name not in self.buffers and name not in tied
        )

    @cached_property
    def tied(self) -> list[tuple[str, str]]:
        """Pairs of names in files of which one is enough."""
        pairs = self._model.all_tied_weights_keys.items()
        names = self._file_names({name for pair in pairs for name in pair})
        return [(names[target], names[source]) for target, source in pairs if target in names and source in names]

    def settle(self, strays: Mapping[str, Shape], absent: Iterable[str]) -> tuple[set[str], set[str]]:
        """Strays that stand for absent tensors, and the absent ones they stand for.

        A checkpoint may have other names or another grouping than save_pretrained's, as long as transformers turns
        it into the same weights when it loads: experts one by one or fused, `language_model.model.` or the reverse.
        """
        wanted: dict[str, list[str]] = {}
        for name in absent:
            wanted.setdefault(self._loaded_as(name)[0], []).append(name)
        groups: dict[str, list[tuple[str, str | None]]] = {}
        for name in sorted(strays, key=dot_natural_key):
            target, pattern = self._loaded_as(name)
            if target in wanted:
                groups.setdefault(target, []).append((name, pattern))
        used: set[str] = set()
        met: set[str] = set()
        for target, group in groups.items():
            made = self._converted(target, group, strays)
            if made and all(key in self._state and shape == self._state[key].shape for key, shape in made.items()):
                used.update(name for name, _ in group)
                met.update(name for key in made for name in wanted.get(key, ()))
        return used, met

    @cached_property
    def _conversions(self) -> tuple[list[WeightRenaming], list[WeightConverter], dict[str, WeightConverter]]:
        steps = get_model_conversion_mapping(self._model)
        converters = [step for step in steps if isinstance(step, WeightConverter)]
        return (
            [step for step in steps if isinstance(step, WeightRenaming)],
            converters,
            {pattern: converter for converter in converters for pattern in converter.source_patterns},
        )

    def _loaded_as(self, name: str) -> tuple[str, str | None]:
        """The name in memory of a tensor in a file, and the conversion it goes through, if any."""
        renamings, converters, _ = self._conversions
        target, pattern = rename_source_key(name, renamings, converters)
        return (name, None) if target not in self._state and name in self._state else (target, pattern)

    def _converted(
        self, target: str, group: list[tuple[str, str | None]], shapes: Mapping[str, Shape]
    ) -> dict[str, Shape] | None:
        patterns = {pattern for _, pattern in group}
        if patterns == {None}:
            return {target: shapes[group[0][0]]} if len(group) == 1 else None
        if None in patterns:
            return None
        converter = deepcopy(self._conversions[2][group[0][1] or ""])
        for name, pattern in group:
            converter.add_tensor(target, name, pattern, torch.empty(shapes[name], device="meta"))
        try:
            made = converter.convert(target, model=self._model, config=self._model.config)
        except Exception:  # shapes that do not go together
            return None
        return {key: tuple((value[0] if isinstance(value, list) else value).shape) for key, value in made.items()}

    def _file_names(self, keys: set[str]) -> dict[str, str]:
        names = {key: key for key in keys if key in self.tensors}
        if len(names) < len(keys):
            for name in self.tensors:
                key = self._loaded_as(name)[0]
                if key in keys:
                    names.setdefault(key, name)
        return names


def model_class(class_name: str) -> Any:
    """transformers' own class of this name, or None."""
    found = getattr(transformers, class_name, None)
    return found if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel) else None


def _build(config: Any, class_name: str) -> Any:
    built = model_class(class_name)
    if not isinstance(config, built.config_class):
        raise ConfigRefused(f"model_type {config.model_type}", f"model_type {built.config_class.model_type}")
    try:
        # Nothing is tied, so that every name keeps a tensor of its own.
        with torch.device("meta"), no_init_weights(), no_tie_weights(), _bounded():
            return built._from_config(config, dtype=torch.bfloat16, attn_implementation="eager")
    except ConfigRefused:
        raise
    except Exception as error:  # whatever a model does with values it never expected
        reason = " ".join(without_paths(str(error)).split()) or type(error).__name__
        raise ConfigRefused(reason, f"values that transformers' {class_name} can be built from") from None


@contextmanager
def _bounded() -> Iterator[None]:
    """Ends the building of a model that grows beyond all bounds, whatever field of the config made it."""
    thread, ends = threading.get_ident(), time.monotonic() + _BUILD_S
    modules = parameters = 0

    def count(_module: object, _name: str, part: Any) -> None:
        nonlocal modules, parameters
        if threading.get_ident() != thread:
            return
        modules += 1
        parameters += part.numel() if isinstance(part, torch.nn.Parameter) else 0
        if modules > _MAX_MODULES:
            raise ConfigRefused(f"more than {_MAX_MODULES} modules and tensors", f"at most {_MAX_MODULES}")
        if parameters > _MAX_PARAMETERS:
            raise ConfigRefused(f"more than {_MAX_PARAMETERS} parameters", f"at most {_MAX_PARAMETERS}")
        if time.monotonic() > ends:
            raise ConfigRefused(f"a model that is not built in {_BUILD_S:.0f} s", "one that is built in a second")

    hooks = (register_module_module_registration_hook(count), register_module_parameter_registration_hook(count))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    joined = "|".join(f"({pattern})" for pattern in patterns)
    compiled = re.compile(joined) if joined else None
    return lambda name: compiled is not None and compiled.search(name) is not None
