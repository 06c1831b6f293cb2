import json
import struct
from pathlib import Path

import pytest

from app.weights.folder import check_folder
from app.weights.safetensors_headers import MAX_HEADER_BYTES

INDEX = "model.safetensors.index.json"


def safetensors(data_bytes: int = 4, end: int | None = None) -> bytes:
    offsets = [0, data_bytes if end is None else end]
    header = json.dumps({"__metadata__": {}, "w": {"dtype": "F32", "shape": [1], "data_offsets": offsets}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * data_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    return tmp_path


def test_a_whole_folder_has_no_problems(folder: Path):
    assert check_folder(folder) == []


def test_no_folder(tmp_path: Path):
    assert check_folder(tmp_path / "absent") == [f"{tmp_path / 'absent'} is not a folder"]


def test_an_empty_folder_names_all_that_is_missing(tmp_path: Path):
    assert check_folder(tmp_path) == [
        "config.json is missing",
        "no tokenizer: one of tokenizer.json, tokenizer_config.json, tokenizer.model is needed",
        "no weights: at least one *.safetensors file is needed",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "config.json is not JSON"),
        ("[" * 100_000, "config.json is not JSON"),
        ("\x80", "config.json is not JSON"),
        ("[]", "config.json is not a JSON object"),
        ('{"model_type": "llama"}', "config.json has no 'architectures' that is a list of class names"),
        ('{"architectures": ["A"], "model_type": 1}', "config.json has no 'model_type' that is a text"),
    ],
)
def test_config(folder: Path, text: str, problem: str):
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert check_folder(folder) == [problem]


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        ("{", f"{INDEX} is not JSON"),
        ("{}", f"{INDEX} has no 'weight_map' from tensor names to file names"),
        ('{"weight_map": {"w": 1}}', f"{INDEX} has no 'weight_map' from tensor names to file names"),
        (
            '{"weight_map": {"v": "model.safetensors", "w": "model-00002-of-00003.safetensors"}}',
            f"model-00002-of-00003.safetensors is missing: {INDEX} names it",
        ),
        (
            '{"weight_map": {"w": "../model.safetensors"}}',
            f"{INDEX} names '../model.safetensors', which is not a plain file name",
        ),
    ],
)
def test_index(folder: Path, index: str, problem: str):
    (folder / INDEX).write_text(index)
    assert check_folder(folder) == [problem]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is cut off: it is shorter than 8 bytes"),
        (b"version https://git-lfs", "is not a safetensors file: its header would have 2336927755350992246 bytes"),
        (
            struct.pack("<Q", MAX_HEADER_BYTES + 1),
            f"is not a safetensors file: its header would have {MAX_HEADER_BYTES + 1} bytes",
        ),
        (struct.pack("<Q", 100) + b"{}", "is cut off inside its header"),
        (struct.pack("<Q", 2) + b"{{", "is not a safetensors file: its header is not JSON"),
        (struct.pack("<Q", 2) + b"[]", "is not a safetensors file: its header is not a JSON object"),
        (struct.pack("<Q", 9) + b'{"w": {}}', "is not a safetensors file: tensor 'w' has no data_offsets"),
        (safetensors(end=-1), "is damaged: the data_offsets of tensor 'w' run backwards"),
        (safetensors()[:-3], "is cut off: tensor 'w' ends 3 bytes past the end of the file"),
    ],
)
def test_weights(folder: Path, content: bytes, problem: str):
    (folder / "model.safetensors").write_bytes(content)
    assert check_folder(folder) == [f"model.safetensors {problem}"]
