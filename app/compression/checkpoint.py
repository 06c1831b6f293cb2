"""The files of a model that is compressed: where each tensor lies, read one by one and never as a whole."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from app.weights.safetensors_headers import HeaderError, HeaderTensor, Shape, read_header

_PREFIX_BYTES = 8
"""Before the header, and tells its length."""


class WeightsUnusable(Exception):
    """The files cannot be compressed; the text says why, and what to do."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its bytes are [start, start + length) of it."""

    path: Path
    dtype: str
    shape: Shape
    start: int
    length: int


class Checkpoint:
    """The safetensors files of a folder, which is only read."""

    def __init__(self, folder: Path) -> None:
        """Reads the headers. Raises WeightsUnusable."""
        self.tensors: dict[str, Stored] = {}
        """By name, in the order of files and of what lies in them."""
        for path in sorted(folder.glob("*.safetensors")):
            try:
                header = read_header(path)
                data_at = _PREFIX_BYTES + _header_bytes(path)
            except HeaderError as error:
                raise WeightsUnusable(f"{path.name} {error}") from None
            for name, found in sorted(header.tensors.items(), key=lambda item: item[1].start):
                self.tensors[name] = _stored(path, found, data_at)
        if not self.tensors:
            raise WeightsUnusable("the model's folder has no safetensors files; upload the model again")

    @property
    def shapes(self) -> dict[str, Shape]:
        return {name: stored.shape for name, stored in self.tensors.items()}

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each tensor."""
        return {name: stored.length for name, stored in self.tensors.items()}

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def load(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Some of the tensors, mapped from their files: what is written to is this process's own."""
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self.tensors[name].path, []).append(name)
        loaded: dict[str, torch.Tensor] = {}
        for path, wanted in by_file.items():
            with safe_open(path, framework="pt", device="cpu") as file:
                loaded |= {name: file.get_tensor(name) for name in wanted}
        return loaded

    def copied(self, names: Iterable[str]) -> dict[str, Stored]:
        """Where some of the tensors lie."""
        return {name: self.tensors[name] for name in names}


def _header_bytes(path: Path) -> int:
    with path.open("rb") as file:
        return int.from_bytes(file.read(_PREFIX_BYTES), "little")


def _stored(path: Path, tensor: HeaderTensor, data_at: int) -> Stored:
    return Stored(path, tensor.dtype, tensor.shape, data_at + tensor.start, tensor.end - tensor.start)
