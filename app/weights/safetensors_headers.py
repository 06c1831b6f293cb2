"""Headers of safetensors files: which tensors a file holds, read without the tensors and without trusting the file."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

Shape = tuple[int, ...]

MAX_HEADER_BYTES = 10_000_000
"""Far above the header of any model; safetensors itself stops at 100 MB."""
FIRST_READ_BYTES = 64 << 10
"""Holds the whole header of most files, so that one request is enough."""

DTYPE_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
_DTYPES = {dtype: dtype for dtype in DTYPE_BITS}  # one text for all tensors of a type
_MAX_DIMENSIONS = 16
_MAX_DIMENSION = 1 << 48


@dataclass(frozen=True, slots=True)
class HeaderTensor:
    """One tensor; its bytes are [start, end) of what follows the header."""

    dtype: str
    shape: Shape
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class HeaderProblem:
    """Something wrong with a header that could be read; `text` goes on from the file's name."""

    text: str
    tensor: str | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says: the tensors that are sound, and what is wrong with it."""

    tensors: dict[str, HeaderTensor]
    problems: tuple[HeaderProblem, ...]


class HeaderError(ValueError):
    """Nothing of the header can be used; the text goes on from the file's name."""


def fetch_header(read: Callable[[int, int], bytes], size_bytes: int) -> bytes:
    """The header's JSON, by one read or two: `read(start, length)`. Raises HeaderError."""
    first = read(0, min(FIRST_READ_BYTES, size_bytes))
    if len(first) < 8:
        raise HeaderError("is cut off: it is shorter than 8 bytes")
    length = int.from_bytes(first[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise HeaderError(f"is not a safetensors file: its header would have {length} bytes")
    if length > size_bytes - 8:
        raise HeaderError("is cut off inside its header")
    header = first[8 : 8 + length]
    if len(header) < length:
        header += read(8 + len(header), length - len(header))
    if len(header) < length:
        raise HeaderError("is cut off inside its header")
    return header


def read_header(path: Path) -> Header:
    """Of a local file. Raises HeaderError, OSError."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:

        def read(start: int, length: int) -> bytes:
            file.seek(start)
            return file.read(length)

        header = fetch_header(read, size_bytes)
    return parse_header(header, size_bytes - 8 - len(header))


def parse_header(header: bytes, data_bytes: int) -> Header:
    """The tensors and what is wrong with them, in a file with `data_bytes` after its header. Raises HeaderError."""
    entries = _entries(header)
    metadata = entries.pop("__metadata__", {})
    problems, tensors = [], {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        problems.append(HeaderProblem("is not a safetensors file: its __metadata__ is not texts by name"))
    for name, entry in entries.items():
        try:
            tensors[name] = _tensor(name, entry)
        except HeaderError as error:
            problems.append(HeaderProblem(str(error), name))
    if not problems:  # else gaps are no surprise
        problems.extend(_layout_problems(tensors, data_bytes))
    return Header(tensors, tuple(problems))


def _entries(header: bytes) -> dict[str, object]:
    # Ten megabytes of empty lists or tiny fields would become hundreds in memory; a tensor has two lists, four fields.
    tensors = header.count(b'"data_offsets"')
    if header.count(b"[") > 2 * tensors + 1000 or header.count(b":") > 4 * tensors + 100_000:
        raise HeaderError("is not a safetensors file: its header is not about tensors")
    try:
        value = json.loads(header.decode(), object_pairs_hook=_unique)
    except HeaderError:
        raise
    except (ValueError, RecursionError):
        raise HeaderError("is not a safetensors file: its header is not JSON") from None
    if not isinstance(value, dict):
        raise HeaderError("is not a safetensors file: its header is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise HeaderError(f"is damaged: its header names {twice!r} twice")
    return found


def _tensor(name: str, entry: object) -> HeaderTensor:
    span = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not (isinstance(entry, dict) and isinstance(span, list) and len(span) == 2 and _are_sizes(span, signed=True)):
        raise HeaderError(f"is not a safetensors file: tensor {name!r} has no data_offsets")
    start, end = span
    if not 0 <= start <= end:
        raise HeaderError(f"is damaged: the data_offsets of tensor {name!r} run backwards")
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise HeaderError(f"is not a safetensors file: tensor {name!r} has the unknown dtype {dtype!r}")
    if not (isinstance(shape, list) and len(shape) <= _MAX_DIMENSIONS and _are_sizes(shape)):
        raise HeaderError(f"is not a safetensors file: tensor {name!r} has no shape")
    needed_bytes = -(-DTYPE_BITS[dtype] * math.prod(shape) // 8)
    if end - start != needed_bytes:
        raise HeaderError(
            f"is damaged: tensor {name!r} has {end - start} bytes where {dtype} {shape} takes {needed_bytes}"
        )
    return HeaderTensor(_DTYPES[dtype], tuple(shape), start, end)


def _are_sizes(values: list[object], *, signed: bool = False) -> bool:
    return all(type(value) is int and (signed or 0 <= value <= _MAX_DIMENSION) for value in values)


def _layout_problems(tensors: dict[str, HeaderTensor], data_bytes: int) -> Iterator[HeaderProblem]:
    """Every byte after the header belongs to exactly one tensor."""
    reached, last = 0, ""
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start < reached:
            yield HeaderProblem(f"is damaged: tensor {name!r} overlaps tensor {last!r}", name)
        elif tensor.start > reached:
            yield HeaderProblem(f"is damaged: {tensor.start - reached} bytes before tensor {name!r} are nobody's", name)
        if tensor.end > reached:
            reached, last = tensor.end, name
    if reached > data_bytes:
        yield HeaderProblem(
            f"is cut off: tensor {last!r} ends {reached - data_bytes} bytes past the end of the file", last
        )
    elif reached < data_bytes:
        yield HeaderProblem(f"is damaged: {data_bytes - reached} bytes after its last tensor are nobody's")
