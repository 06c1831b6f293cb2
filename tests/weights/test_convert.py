"""Files written by torch.save, and by hand, converted in the real sandbox."""

import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from app.weights import convert as module
from app.weights.convert import PickleRefused, convert, convert_folder
from app.weights.folder_contents import INDEX

MIB = 1 << 20


def tensors() -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "a.weight": torch.randn(3, 4),
        "b.weight": torch.randn(5, 2).to(torch.bfloat16),
        "c.bias": torch.arange(7),
        "d.scalar": torch.tensor(1.5),
        "e.empty": torch.empty(0, 4),
    }


def save(path: Path, content: object, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path


def converted(path: Path, **limits: Any) -> dict[str, Any]:
    target = path.with_name("model.safetensors")
    convert(path, target, **limits)
    return dict(load_file(target))


def refusal(path: Path, **limits: Any) -> str:
    target = path.with_name("model.safetensors")
    with pytest.raises(PickleRefused) as caught:
        convert(path, target, **limits)
    assert str(path.parent) not in str(caught.value)
    assert not target.exists()
    return str(caught.value)


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


# ---- what is accepted


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_by_name(tmp_path: Path, zipped: bool):
    path = save(tmp_path / "w.bin", tensors(), _use_new_zipfile_serialization=zipped)
    assert equal(converted(path), tensors())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.safetensors", "w.bin"]
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_result_is_the_same_each_time(tmp_path: Path):
    path = save(tmp_path / "w.bin", tensors())
    converted(path)
    first = (tmp_path / "model.safetensors").read_bytes()
    converted(path)
    assert (tmp_path / "model.safetensors").read_bytes() == first


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_checkpoint(tmp_path: Path, key: str):
    checkpoint = {key: tensors(), "epoch": 3, "optimizer": {"state": [torch.ones(2)]}}
    assert equal(converted(save(tmp_path / "w.ckpt", checkpoint)), tensors())


def test_metadata_between_tensors_is_dropped(tmp_path: Path):
    content = OrderedDict(tensors(), step=3, name="x", parts=[1, (2, None)], nested={"a": {"b": 0.5}})
    assert equal(converted(save(tmp_path / "w.bin", content)), tensors())


def test_parameters_and_a_state_dict_with_its_own_metadata(tmp_path: Path):
    layer = torch.nn.Linear(3, 2)
    assert equal(converted(save(tmp_path / "w.bin", layer.state_dict())), layer.state_dict())
    parameters = {name: value for name, value in layer.named_parameters()}
    found = converted(save(tmp_path / "p.bin", parameters))
    assert equal(found, {name: value.detach() for name, value in parameters.items()})


def test_tied_weights_are_both_there(tmp_path: Path):
    shared = torch.randn(50, 8)
    content = {"embed": shared, "head": shared, "rows": shared[10:20], "rest": shared[20:]}
    assert equal(converted(save(tmp_path / "w.bin", content)), content)


def test_parts_of_one_piece_of_memory(tmp_path: Path):
    whole = torch.arange(100.0)
    content = {"first": whole[:40], "second": whole[40:100].view(6, 10), "turned": whole.view(10, 10).t()}
    assert equal(converted(save(tmp_path / "w.bin", content)), content)


def test_a_large_file_needs_little_memory(tmp_path: Path):
    path = save(tmp_path / "w.bin", {str(number): torch.zeros(16 * MIB) for number in range(4)})
    assert path.stat().st_size > 256 * MIB
    assert len(converted(path, memory_bytes=96 * MIB)) == 4


# ---- what is refused


class Touch:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_does_nothing(tmp_path: Path, zipped: bool):
    content = {**tensors(), "evil": Touch(tmp_path / "ran")}
    path = save(tmp_path / "w.bin", content, _use_new_zipfile_serialization=zipped)
    assert refusal(path) == "it asks for posix.system, and nothing is loaded but tensors, numbers and texts"
    assert not (tmp_path / "ran").exists()


def test_a_plain_malicious_pickle_does_nothing(tmp_path: Path):
    path = tmp_path / "w.bin"
    path.write_bytes(pickle.dumps(Touch(tmp_path / "ran")))
    refusal(path)
    assert not (tmp_path / "ran").exists()


def test_a_whole_module_is_code(tmp_path: Path):
    said = refusal(save(tmp_path / "w.bin", torch.nn.Linear(2, 2)))
    assert "it asks for torch.nn.modules.linear.Linear" in said


def test_a_class_that_some_library_allowed_is_refused_too(tmp_path: Path):
    with torch.serialization.safe_globals([zipfile.ZipInfo]):
        assert "zipfile.ZipInfo" in refusal(save(tmp_path / "w.bin", {**tensors(), "x": zipfile.ZipInfo()}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(2)], "it holds a list, not tensors by name"),
        ({}, "it holds no tensors"),
        ({"epoch": 3}, "it holds no tensors"),
        ({1: torch.ones(2)}, "has a int for a name"),
        ({"a": torch.ones(2), "nested": {"b": torch.ones(2)}}, "'nested' is neither a tensor nor a number or text"),
        ({"a": torch.ones(2), "blob": b"x"}, "'blob' is neither"),
        ({"a": torch.eye(3).to_sparse()}, "'a' is sparse"),
        ({"a": torch.empty(3, device="meta")}, "without data"),
        ({"a": torch.ones(2, dtype=torch.complex128)}, "complex128"),
        ({"a": torch.ones(1).expand(1 << 40)}, "overlap so much"),
        ({str(number): torch.ones(1).expand(MIB) for number in range(100)}, "overlap so much"),
    ],
)
def test_other_content(tmp_path: Path, content: object, words: str):
    assert words in refusal(save(tmp_path / "w.bin", content))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_torchs_own_quantization(tmp_path: Path):
    quantized = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    assert "quantized by torch" in refusal(save(tmp_path / "w.bin", {"a": quantized}))


@pytest.mark.parametrize(
    "data",
    [b"", b"no pickle", b"PK\x03\x04" + bytes(1000), b"\x80\x02" + bytes(100), b"version https://git-lfs", bytes(MIB)],
)
def test_other_files(tmp_path: Path, data: bytes):
    path = tmp_path / "w.bin"
    path.write_bytes(data)
    refusal(path)


def test_a_file_that_is_cut_off(tmp_path: Path):
    path = save(tmp_path / "w.bin", {"a": torch.ones(1000)})
    path.write_bytes(path.read_bytes()[:-600])
    refusal(path)


@pytest.mark.parametrize("bloated", ["data.pkl", "a tensor"])
def test_an_archive_that_unpacks_to_more_than_it_is_has_no_effect(tmp_path: Path, bloated: str):
    """torch compresses nothing, so what is compressed is somebody's trap."""
    plain = save(tmp_path / "plain.bin", {"a": torch.zeros(32 * MIB, dtype=torch.uint8)})
    trap = tmp_path / "trap.bin"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(trap, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith(bloated):
                content = b"\x80\x02]" + b"N0" * (32 * MIB)
            target.writestr(name, content)
    assert trap.stat().st_size < MIB
    refusal(trap, memory_bytes=512 * MIB)


def test_tensors_beyond_the_end_of_the_file(tmp_path: Path):
    path = save(tmp_path / "w.bin", {"a": torch.ones(4)})
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    records["w/data.pkl"] = records["w/data.pkl"].replace(b"K\x04", b"M\xff\xff")  # 4 becomes 65535
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    refusal(path)


def test_too_large(tmp_path: Path):
    turned = {"a": torch.zeros(16 * MIB).view(4096, -1).t()}  # has to be copied, 64 MiB
    said = refusal(save(tmp_path / "w.bin", turned), memory_bytes=32 * MIB)
    assert said == "it is too large: 32 MiB do not suffice to load it"


def test_too_large_in_the_old_format(tmp_path: Path):
    path = save(tmp_path / "w.bin", {"a": torch.zeros(16 * MIB)}, _use_new_zipfile_serialization=False)
    assert refusal(path, memory_bytes=32 * MIB).startswith("it is too large: 64 MiB in a format that has to be loaded")
    turned = {"a": torch.zeros(16 * MIB).view(4096, -1).t()}
    path = save(tmp_path / "w.bin", turned, _use_new_zipfile_serialization=False)
    assert refusal(path, memory_bytes=80 * MIB) == "it is too large: 80 MiB do not suffice to load it"


def test_too_slow(tmp_path: Path):
    assert refusal(save(tmp_path / "w.bin", tensors()), time_s=0.001) == (
        "it cannot be loaded: it took longer than 0.001 s"
    )


def test_a_disk_that_takes_no_more_is_not_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.sandbox, "run", limited(module.sandbox.run))
    path = save(tmp_path / "w.bin", {"a": torch.zeros(MIB)})
    with pytest.raises(OSError, match="the converted weights could not be written"):
        convert(path, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == [path]


def limited(run: Any) -> Any:
    return lambda *arguments, **limits: run(*arguments, **limits | {"file_bytes": 1000})


# ---- folders


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    content = tensors()
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    save(tmp_path / names[0], {name: content[name] for name in ("a.weight", "b.weight")})
    save(tmp_path / names[1], {name: content[name] for name in ("c.bias", "d.scalar", "e.empty")})
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


NAMES = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
RESULTS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def test_a_folder_of_shards(sharded: Path):
    heard: list[str] = []
    assert convert_folder(sharded, reversed(NAMES), heard.append) == [*RESULTS, INDEX]
    assert heard == RESULTS
    assert equal(load_file(sharded / RESULTS[0]) | load_file(sharded / RESULTS[1]), tensors())
    index = json.loads((sharded / INDEX).read_text())
    assert index["weight_map"] == {
        "a.weight": RESULTS[0], "b.weight": RESULTS[0], "c.bias": RESULTS[1], "d.scalar": RESULTS[1],
        "e.empty": RESULTS[1],
    }  # fmt: skip
    assert index["metadata"] == {"total_size": sum(tensor.nbytes for tensor in tensors().values())}
    assert sorted(path.name for path in sharded.iterdir()) == sorted(["config.json", *NAMES, *RESULTS, INDEX])


def test_transformers_reads_the_result(tmp_path: Path):
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_attention_heads=2, num_hidden_layers=2, vocab_size=32
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    state = model.state_dict()
    half = len(state) // 2
    save(tmp_path / NAMES[0], dict(list(state.items())[:half]))
    save(tmp_path / NAMES[1], dict(list(state.items())[half:]))
    convert_folder(tmp_path, NAMES)
    for name in NAMES:
        (tmp_path / name).unlink()
    config.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert equal(loaded.state_dict(), state)


def test_one_file_needs_no_index(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    save(tmp_path / "sub" / "pytorch_model.bin", tensors())
    assert convert_folder(tmp_path, ["sub/pytorch_model.bin"]) == ["sub/model.safetensors"]
    assert (tmp_path / "sub" / "model.safetensors").is_file()


def test_a_second_call_converts_only_what_changed(sharded: Path, monkeypatch: pytest.MonkeyPatch):
    convert_folder(sharded, NAMES)
    times = [(sharded / name).stat().st_mtime_ns for name in RESULTS]
    save(sharded / NAMES[1], {"c.bias": torch.zeros(2)})
    os.utime(sharded / NAMES[1], ns=(times[1] + 1, times[1] + 1))
    convert_folder(sharded, NAMES)
    assert (sharded / RESULTS[0]).stat().st_mtime_ns == times[0]
    assert list(load_file(sharded / RESULTS[1])) == ["c.bias"]
    assert json.loads((sharded / INDEX).read_text())["weight_map"]["c.bias"] == RESULTS[1]
    monkeypatch.setattr(module, "convert", lambda *arguments, **limits: pytest.fail("converted again"))
    os.utime(sharded / RESULTS[1])
    assert convert_folder(sharded, NAMES) == [*RESULTS, INDEX]


def test_an_interrupted_call_is_finished_by_the_next(sharded: Path):
    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_folder(sharded, NAMES, interrupt)
    left = sharded / f".{RESULTS[1]}.partial"
    left.mkdir()
    (left / RESULTS[1]).write_bytes(b"half")
    assert convert_folder(sharded, NAMES) == [*RESULTS, INDEX]
    assert not left.exists()


def test_a_refused_file_is_named(sharded: Path):
    (sharded / NAMES[1]).write_bytes(b"no pickle")
    with pytest.raises(PickleRefused, match=f"^{NAMES[1]}: it "):
        convert_folder(sharded, NAMES)


def test_two_files_with_the_same_result(sharded: Path):
    with pytest.raises(PickleRefused, match="differ only in their ending"):
        convert_folder(sharded, ["pytorch_model.bin", "model.ckpt"])
