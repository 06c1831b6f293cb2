"""Ways to damage a weight folder: functions that make one, to be called with the folder."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.weights.quantized_folders import quantize
from tests.weights.safetensors_files import read_safetensors, write_safetensors, write_tensors
from tests.weights.sound_folders import edit_json

Damage = Callable[[Path], None]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors")


def config(**fields: Any) -> Damage:
    """Set fields of config.json; None removes one."""

    def edit(value: dict[str, Any]) -> dict[str, Any]:
        return {name: inner for name, inner in {**value, **fields}.items() if inner is not None}

    return lambda folder: edit_json(folder / "config.json", edit)


def write(name: str, content: bytes | str) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return damage


def remove(*names: str) -> Damage:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def together(*steps: Callable[[Path], object]) -> Damage:
    return lambda folder: [step(folder) for step in steps] and None


def quantized(form: str, *steps: Callable[[Path], object]) -> Damage:
    return together(lambda folder: quantize(folder, form), *steps)


def header(edit: Callable[[dict[str, Any]], object], name: str = WEIGHTS) -> Damage:
    """Change a header and keep the bytes after it."""

    def damage(folder: Path) -> None:
        value, data = read_safetensors(folder / name)
        edit(value)
        write_safetensors(folder / name, json.dumps(value).encode(), data)

    return damage


def tensors(edit: Callable[[dict[str, Any]], object], name: str = WEIGHTS) -> Damage:
    """Change (dtype, shape) by tensor, and lay the file out anew, as sound as any."""

    def damage(folder: Path) -> None:
        old, _ = read_safetensors(folder / name)
        old.pop("__metadata__", None)
        kept = {tensor: (entry["dtype"], entry["shape"]) for tensor, entry in old.items()}
        edit(kept)
        write_tensors(folder / name, kept)

    return damage


def index(edit: Callable[[dict[str, str]], object]) -> Damage:
    def change(value: dict[str, Any]) -> None:
        edit(value["weight_map"])

    return lambda folder: edit_json(folder / INDEX, change)


def resize(change: int) -> Damage:
    return lambda folder: os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size + change)


def rename(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def edit(found: dict[str, Any]) -> None:
        found[new] = found.pop(old)

    return edit


def shift(tensor: str, start: int, end: int) -> Callable[[dict[str, Any]], None]:
    def edit(found: dict[str, Any]) -> None:
        offsets = found[tensor]["data_offsets"]
        found[tensor]["data_offsets"] = [offsets[0] + start, offsets[1] + end]

    return edit


def move_to(folder_name: str, *names: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / folder_name).mkdir()
        for name in names:
            shutil.move(folder / name, folder / folder_name / name)

    return damage


def adapter(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    write_tensors(folder / "adapter_model.safetensors", {"base_model.q_proj.lora_A.weight": ("BF16", [4, 4])})


def second_copy(folder: Path) -> None:
    shutil.copy(folder / SHARDS[0], folder / "model.safetensors")


def duplicate_key(folder: Path) -> None:
    one = b'"w": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}'
    write_safetensors(folder / WEIGHTS, b"{" + one + b", " + one + b"}", b"\0\0")


def pickled_shards(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model-1.bin").write_bytes(b"x")
    weight_map = {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def generation(**fields: Any) -> Damage:
    return lambda folder: edit_json(folder / "generation_config.json", lambda value: value.update(fields))
