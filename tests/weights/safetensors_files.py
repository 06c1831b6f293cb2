"""Safetensors files by hand: their headers read and written without the library, so that they may be wrong."""

import json
import math
from pathlib import Path
from typing import Any

from app.weights.safetensors_headers import DTYPE_BITS


def read_safetensors(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header, and the bytes after it."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def write_safetensors(path: Path, header: bytes, data: bytes = b"") -> None:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def write_tensors(path: Path, shapes: dict[str, tuple[str, list[int]]]) -> None:
    """Zeros of these dtypes and shapes."""
    entries, end = {}, 0
    for tensor, (dtype, shape) in shapes.items():
        start, end = end, end + DTYPE_BITS[dtype] // 8 * math.prod(shape)
        entries[tensor] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    write_safetensors(path, json.dumps(entries).encode(), bytes(end))
