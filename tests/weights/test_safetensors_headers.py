"""Headers: what safetensors itself refuses is refused, and the sizes of reads are bounded."""

import struct
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from app.weights.safetensors_headers import (
    DTYPE_BITS,
    FIRST_READ_BYTES,
    MAX_HEADER_BYTES,
    HeaderError,
    fetch_header,
    parse_header,
    read_header,
)
from tests.weights.broken_folders import HEADERS, UP, Broken
from tests.weights.damages import WEIGHTS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(
        {UP: torch.zeros(128, 64), "a": torch.zeros(3, dtype=torch.bfloat16), "b": torch.zeros(0)}, tmp_path / WEIGHTS
    )
    return tmp_path


def problems(path: Path) -> list[str]:
    try:
        return [problem.text for problem in read_header(path).problems]
    except HeaderError as error:
        return [str(error)]


def test_a_file_of_safetensors_is_sound(folder: Path):
    assert problems(folder / WEIGHTS) == []


@pytest.mark.parametrize("broken", HEADERS, ids=lambda broken: broken.name)
def test_what_safetensors_refuses_is_refused(folder: Path, broken: Broken):
    broken.damage(folder)
    with pytest.raises(SafetensorError), safe_open(folder / WEIGHTS, "pt") as opened:
        opened.keys()
    assert problems(folder / WEIGHTS)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "float16", "uint32", "float64", "float8_e4m3fn"])
def test_dtypes_have_the_sizes_of_torch(tmp_path: Path, dtype: str):
    tensor = torch.zeros(7, dtype=getattr(torch, dtype))
    save_file({"a": tensor}, tmp_path / WEIGHTS)
    assert problems(tmp_path / WEIGHTS) == []
    with safe_open(tmp_path / WEIGHTS, "pt") as opened:
        assert DTYPE_BITS[opened.get_slice("a").get_dtype()] == 8 * tensor.element_size()


def test_values_smaller_than_bytes():
    entry = b'{"a": {"dtype": "F4", "shape": [3, 2], "data_offsets": [0, 3]}}'
    assert parse_header(entry, 3).problems == ()


@pytest.mark.parametrize(
    ("length", "reads"),
    [
        (100, [(0, FIRST_READ_BYTES)]),
        (FIRST_READ_BYTES - 8, [(0, FIRST_READ_BYTES)]),
        (FIRST_READ_BYTES, [(0, FIRST_READ_BYTES), (FIRST_READ_BYTES, 8)]),
        (MAX_HEADER_BYTES, [(0, FIRST_READ_BYTES), (FIRST_READ_BYTES, MAX_HEADER_BYTES + 8 - FIRST_READ_BYTES)]),
        (MAX_HEADER_BYTES + 1, [(0, FIRST_READ_BYTES)]),
    ],
)
def test_a_header_takes_one_read_or_two(length: int, reads: list[tuple[int, int]]):
    asked = []

    def read(start: int, count: int) -> bytes:
        asked.append((start, count))
        return (struct.pack("<Q", length) + b" " * (count - 8)) if start == 0 else b" " * count

    if length > MAX_HEADER_BYTES:
        with pytest.raises(HeaderError, match=str(length)):
            fetch_header(read, 1 << 40)
    else:
        assert len(fetch_header(read, 1 << 40)) == length
    assert asked == reads
