"""What a compression writes: shards that appear whole or not at all, one after another, and at last what names them.

A shard that is there is finished work: another attempt with the same recipe, model and samples goes on behind it.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from app.compression.checkpoint import Checkpoint, Stored
from app.core.recipe import Recipe

INDEX, CONFIG = "model.safetensors.index.json", "config.json"
_CHUNK_BYTES = 16 << 20
_DTYPES = {
    torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3", torch.int8: "I8", torch.uint8: "U8", torch.int32: "I32", torch.int64: "I64",
}  # fmt: skip


class Shards:
    """The shards of one new model, `count` of them, in a folder."""

    def __init__(self, folder: Path, count: int, made_of: str) -> None:
        """Keeps what an attempt before has made of the same (`made_of` is equal then), and removes anything else."""
        self._folder, self._count = folder, count
        mark = folder.with_name(f".{folder.name}.made-of")
        if not mark.exists() or mark.read_text() != made_of:
            mark.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _write_whole(mark, lambda file: file.write(made_of.encode()))
        folder.mkdir(parents=True, exist_ok=True)
        for half in folder.glob(".*.part"):
            half.unlink()

    def path(self, number: int) -> Path:
        """Of a shard; the first has number 1."""
        return self._folder / f"model-{number:05}-of-{self._count:05}.safetensors"

    def done(self, number: int) -> bool:
        return self.path(number).exists()

    def write(self, number: int, tensors: Mapping[str, torch.Tensor], copied: Mapping[str, Stored]) -> None:
        """A shard of new tensors, and of some that are taken over from files as they are, in bounded memory."""
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        reached = 0
        for name, dtype, shape, size_bytes in [
            *((name, _DTYPES[tensor.dtype], tuple(tensor.shape), _bytes(tensor)) for name, tensor in tensors.items()),
            *((name, stored.dtype, stored.shape, stored.length) for name, stored in copied.items()),
        ]:
            entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [reached, reached + size_bytes]}
            reached += size_bytes
        header = json.dumps(entries, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)

        def fill(file: BinaryIO) -> None:
            file.write(len(header).to_bytes(8, "little") + header)
            for tensor in tensors.values():
                file.write(memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
            for stored in copied.values():
                _copy(stored, file)

        _write_whole(self.path(number), fill)

    def finish(self, config: Mapping[str, Any]) -> None:
        """Name the tensors of all shards, and say what the model is: only now can it be loaded."""
        made = Checkpoint(self._folder)
        weight_map = {name: stored.path.name for name, stored in made.tensors.items()}
        index = {"metadata": {"total_size": sum(made.sizes.values())}, "weight_map": dict(sorted(weight_map.items()))}
        for name, content in ((INDEX, index), (CONFIG, config)):
            text = json.dumps(content, indent=2).encode()
            _write_whole(self._folder / name, lambda file, text=text: file.write(text))


def digest(source: Checkpoint, recipe: Recipe, calibration: Iterable[list[int]]) -> str:
    """Equal for the same model files, recipe and samples."""
    found = hashlib.sha256(recipe.model_dump_json(exclude={"origins"}).encode())
    for name, stored in source.tensors.items():
        status = stored.path.stat()
        found.update(f"{name} {stored.dtype} {stored.shape} {status.st_size} {status.st_mtime_ns}\n".encode())
    for sample in calibration:
        found.update(json.dumps(sample).encode())
    return found.hexdigest()


def _bytes(tensor: torch.Tensor) -> int:
    return int(math.prod(tensor.shape) * tensor.element_size())


def _copy(stored: Stored, file: BinaryIO) -> None:
    with stored.path.open("rb") as source:
        source.seek(stored.start)
        for start in range(0, stored.length, _CHUNK_BYTES):
            file.write(source.read(min(_CHUNK_BYTES, stored.length - start)))


def _write_whole(path: Path, fill: Any) -> None:
    arriving = path.with_name(f".{path.name}.part")
    with arriving.open("wb") as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())
    arriving.replace(path)
