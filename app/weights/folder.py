"""Whether a folder can be a model at all: its files and their headers, read in milliseconds and without torch."""

import json
from collections.abc import Iterator
from pathlib import Path

from app.weights.folder_contents import CONFIG, INDEX, TOKENIZERS
from app.weights.safetensors_headers import HeaderError, read_header


def check_folder(folder: Path) -> list[str]:
    """What keeps this folder from being a model, one plain sentence each that names the file; empty when nothing does.

    Never raises for what the folder contains, and reads no weights.
    """
    if not folder.is_dir():
        return [f"{folder} is not a folder"]
    return [*_config_problems(folder), *_tokenizer_problems(folder), *_weight_problems(folder)]


def _config_problems(folder: Path) -> Iterator[str]:
    config, problem = _read_object(folder / CONFIG)
    if problem:
        yield problem
        return
    for field, kind, wanted in (("architectures", list, "a list of class names"), ("model_type", str, "a text")):
        if not isinstance(config.get(field), kind) or not config[field]:
            yield f"{CONFIG} has no '{field}' that is {wanted}"


def _tokenizer_problems(folder: Path) -> Iterator[str]:
    if not any((folder / name).is_file() for name in TOKENIZERS):
        yield f"no tokenizer: one of {', '.join(TOKENIZERS)} is needed"


def _weight_problems(folder: Path) -> Iterator[str]:
    weights = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    if not weights:
        yield "no weights: at least one *.safetensors file is needed"
    if (folder / INDEX).exists():
        yield from _index_problems(folder)
    for path in weights:
        problem = _header_problem(path)
        if problem:
            yield f"{path.name} {problem}"


def _index_problems(folder: Path) -> Iterator[str]:
    index, problem = _read_object(folder / INDEX)
    if problem:
        yield problem
        return
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        yield f"{INDEX} has no 'weight_map' from tensor names to file names"
        return
    for name in sorted(set(shards.values())):
        if Path(name).name != name:
            yield f"{INDEX} names {name!r}, which is not a plain file name"
        elif not (folder / name).is_file():
            yield f"{name} is missing: {INDEX} names it"


def _header_problem(path: Path) -> str | None:
    try:
        problems = read_header(path).problems
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except HeaderError as error:
        return str(error)
    return problems[0].text if problems else None


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
