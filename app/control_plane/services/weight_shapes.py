"""What can be told of a compression before anything is loaded: by the config and the headers of the weights."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from app.core.compression_memory import memory_problem, predict_peak_bytes
from app.core.compression_spec import CompressionWish
from app.core.errors import InvalidField
from app.core.recipe import choose_recipe, linear_layers
from app.core.records import Version
from app.core.specs import MachineType
from app.store.folders import FolderFile, SourceChanged, StoreFolder
from app.store.object_store import ObjectStore, StoreError
from app.weights.safetensors_headers import HeaderError, fetch_header, parse_header
from app.weights.small_files import CONFIG_BYTES, read_object

_MAX_SHARDS = 200
"""With more the answer would take too long: then the job finds out for itself, before it loads anything."""
_CONFIG = "config.json"

log = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Shapes:
    """Of the tensors of a version, and its config."""

    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    bytes: Mapping[str, int]

    @property
    def longest_tokens(self) -> int | None:
        """The most that the model takes."""
        text = self.config.get("text_config")
        length = (text if isinstance(text, dict) else self.config).get("max_position_embeddings")
        return length if type(length) is int and length > 0 else None


class WeightShapes:
    """Asks the object store for a few kilobytes of each file."""

    def __init__(self, store: ObjectStore, node_memory_bytes: Callable[[], int | None]):
        """`node_memory_bytes`: of the only node, where there is just one; None: it is not known where a job runs."""
        self._store = store
        self._node_memory_bytes = node_memory_bytes

    def check(
        self, version: Version, spec: CompressionWish, machine: MachineType, targets: Sequence[MachineType]
    ) -> None:
        """Raises InvalidField where no recipe goes with the model and the targets, or its memory is not enough.

        What cannot be read now is left to the job, which looks once more before it loads anything.
        """
        found = self._read(version.prefix)
        if found is None:
            return
        recipe = choose_recipe(spec, linear_layers(found.shapes), targets, found.longest_tokens)
        held = machine.memory_bytes or self._node_memory_bytes()
        if held is None:
            return
        predicted = predict_peak_bytes(
            spec.precision, found.config, found.bytes, recipe.calibration_samples, recipe.calibration_length
        )
        if problem := memory_problem(predicted, held, machine.name):
            raise InvalidField(problem, "machine_type", "memory_short")

    def _read(self, prefix: str) -> Shapes | None:
        folder = StoreFolder(self._store, prefix)
        try:
            files = {file.name: file for file in folder.files()}
            shards = [file for name, file in files.items() if name.endswith(".safetensors") and "/" not in name]
            if _CONFIG not in files or not 0 < len(shards) <= _MAX_SHARDS:
                return None
            config = read_object(folder, files[_CONFIG], CONFIG_BYTES)
            tensors = {name: one for file in shards for name, one in _tensors(folder, file).items()}
        except (HeaderError, SourceChanged, StoreError, ValueError):
            log.warning("the shapes of the weights at %s cannot be read", prefix, exc_info=True)
            return None
        return Shapes(
            config,
            {name: tensor.shape for name, tensor in tensors.items()},
            {name: tensor.end - tensor.start for name, tensor in tensors.items()},
        )


def _tensors(folder: StoreFolder, file: FolderFile) -> Mapping[str, Any]:
    header = fetch_header(partial(folder.read, file), file.size_bytes)
    return parse_header(header, file.size_bytes - 8 - len(header)).tensors
