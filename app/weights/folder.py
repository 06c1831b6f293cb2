"""Whether a folder can be a model at all: its files and their headers, read in milliseconds and without torch."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

MAX_HEADER_BYTES = 10_000_000
"""Far above the header of any model; safetensors itself stops at 100 MB."""

_CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def check_folder(folder: Path) -> list[str]:
    """What keeps this folder from being a model, one plain sentence each that names the file; empty when nothing does.

    Never raises for what the folder contains, and reads no weights.
    """
    if not folder.is_dir():
        return [f"{folder} is not a folder"]
    return [*_config_problems(folder), *_tokenizer_problems(folder), *_weight_problems(folder)]


def _config_problems(folder: Path) -> Iterator[str]:
    config, problem = _read_object(folder / _CONFIG)
    if problem:
        yield problem
        return
    for field, kind, wanted in (("architectures", list, "a list of class names"), ("model_type", str, "a text")):
        if not isinstance(config.get(field), kind) or not config[field]:
            yield f"{_CONFIG} has no '{field}' that is {wanted}"


def _tokenizer_problems(folder: Path) -> Iterator[str]:
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        yield f"no tokenizer: one of {', '.join(_TOKENIZERS)} is needed"


def _weight_problems(folder: Path) -> Iterator[str]:
    weights = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    if not weights:
        yield "no weights: at least one *.safetensors file is needed"
    if (folder / _INDEX).exists():
        yield from _index_problems(folder)
    for path in weights:
        problem = _header_problem(path)
        if problem:
            yield f"{path.name} {problem}"


def _index_problems(folder: Path) -> Iterator[str]:
    index, problem = _read_object(folder / _INDEX)
    if problem:
        yield problem
        return
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        yield f"{_INDEX} has no 'weight_map' from tensor names to file names"
        return
    for name in sorted(set(shards.values())):
        if Path(name).name != name:
            yield f"{_INDEX} names {name!r}, which is not a plain file name"
        elif not (folder / name).is_file():
            yield f"{name} is missing: {_INDEX} names it"


def _header_problem(path: Path) -> str | None:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            if len(prefix) < 8:
                return "is cut off: it is shorter than 8 bytes"
            length = struct.unpack("<Q", prefix)[0]
            if length > MAX_HEADER_BYTES:
                return f"is not a safetensors file: its header would have {length} bytes"
            if length > size - 8:
                return "is cut off inside its header"
            header = json.loads(file.read(length))
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        return "is not a safetensors file: its header is not JSON"
    if not isinstance(header, dict):
        return "is not a safetensors file: its header is not a JSON object"
    header.pop("__metadata__", None)
    data_bytes = size - 8 - length
    for tensor, entry in header.items():
        span = entry.get("data_offsets") if isinstance(entry, dict) else None
        if not (isinstance(span, list) and len(span) == 2 and all(type(offset) is int for offset in span)):
            return f"is not a safetensors file: tensor {tensor!r} has no data_offsets"
        if not 0 <= span[0] <= span[1]:
            return f"is damaged: the data_offsets of tensor {tensor!r} run backwards"
        if span[1] > data_bytes:
            return f"is cut off: tensor {tensor!r} ends {span[1] - data_bytes} bytes past the end of the file"
    return None


def _read_object(path: Path) -> tuple[dict[str, object], str]:
    """The JSON object in this file and "", or an empty one and what is wrong."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}, f"{path.name} is missing"
    except OSError as error:
        return {}, f"{path.name} cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        return {}, f"{path.name} is not JSON"
    return (value, "") if isinstance(value, dict) else ({}, f"{path.name} is not a JSON object")
