"""Validation of hostile, failing and huge folders: it costs little, reads little and believes nothing."""

import json
import logging
import time
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.bench.big_folder import write_sparse_llama_70b
from app.catalog.entries import CatalogEntry
from app.core.job_specs import MachineMemory
from app.store.folders import FolderFile, SourceChanged
from app.store.local_folder import LocalFolder
from app.store.object_store import StoreError
from app.weights.validation import validate
from tests.weights.damages import config
from tests.weights.safetensors_files import read_safetensors, write_safetensors
from tests.weights.sound_folders import entry_for
from tests.weights.verdicts import MACHINES, Check, Sound, codes


@pytest.mark.parametrize(
    "fields",
    [
        {"num_labels": 10**9},
        {"id2label": {"0": "x"}, "num_labels": 10**9},
        {"attn_implementation": "kernels-community/nothing", "_attn_implementation": "kernels-community/nothing"},
        {"torch_dtype": "load", "dtype": "load"},
        {"_commit_hash": "x", "_name_or_path": "/etc"},
        {"surprise": float("nan"), "another": float("inf")},
        {"gradient_checkpointing": True},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_configs_may_say_without_effect(copy: Sound, check: Check, fields: dict[str, Any]):
    folder = copy("llama")
    config(**fields)(folder)
    started = time.process_time()
    assert check(folder).findings == ()
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("llama", {"num_hidden_layers": 1024, "hidden_size": 1 << 23, "intermediate_size": 1 << 24}),
        ("llama", {"vocab_size": 1 << 24, "hidden_size": 1 << 24, "num_attention_heads": 1}),
        ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": "x" * 1000}}),
        ("llama", {"rope_parameters": [1, 2]}),
        ("llama", {"to_dict": 1, "get_text_config": 1}),
        ("llama", {"head_dim": -1}),
        ("llama", {"num_attention_heads": 0}),
        ("llama", {"hidden_act": "__import__('os')"}),
        ("mixtral", {"num_local_experts": 8192, "num_hidden_layers": 1000}),
        ("gemma3", {"text_config": {"num_hidden_layers": 10**12}}),
        ("gemma3", {"vision_config": {"num_hidden_layers": 1000, "hidden_size": 1 << 23}}),
        ("gemma3", {"vision_config": {"image_size": 1 << 24, "patch_size": 1}}),
        ("gemma3", {"text_config": "text"}),
    ],
)
def test_hostile_configs_cost_little(copy: Sound, check: Check, family: str, fields: dict[str, Any]):
    folder = copy(family)
    config(**fields)(folder)
    started = time.process_time()
    report = check(folder, family, machines=())
    assert time.process_time() - started < 15
    assert codes(report), "nothing of this makes a model"
    assert "unknown_error" not in codes(report)


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": [' + b"[]," * 3_000_000,
        b"{" + b'"a":1,' * 1_600_000,
        b'{"data_offsets":[[' * 500_000,
        b" " * 9_999_000 + b"{}",
        b'{"a": {"dtype": "F32", "data_offsets": [0, 4], "shape": [' + b"1," * 4_000_000 + b"1]}}",
    ],
    ids=["lists", "fields", "deep", "spaces", "numbers"],
)
def test_hostile_headers_cost_little(copy: Sound, check: Check, header: bytes):
    folder = copy("llama")
    write_safetensors(folder / "model.safetensors", header)
    tracemalloc.start()
    try:
        report = check(folder)
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()
    assert codes(report) == {"weights_unloadable"}


class Wrapped:
    """A folder that counts reads, and whose files can change or fail to be read."""

    def __init__(self, path: Path, failures: dict[str, Exception] | None = None) -> None:
        self._folder = LocalFolder(path)
        self._failures = failures or {}
        self.reads: list[tuple[str, int]] = []

    def files(self) -> list[FolderFile]:
        if "" in self._failures:
            raise self._failures[""]
        return self._folder.files()

    def read(self, file: FolderFile, start: int = 0, length: int | None = None) -> bytes:
        if file.name in self._failures:
            raise self._failures[file.name]
        data = self._folder.read(file, start, length)
        self.reads.append((file.name, len(data)))
        return data


@pytest.mark.parametrize(
    ("file", "failure", "code"),
    [
        ("", StoreError("object store: AccessDenied, at 'x'"), "source_unreadable"),
        ("", PermissionError(13, "Permission denied", "/secret/place"), "source_unreadable"),
        ("config.json", SourceChanged("config.json"), "source_changed"),
        ("model.safetensors", SourceChanged("model.safetensors"), "source_changed"),
        ("tokenizer.json", StoreError("object store: SlowDown"), "source_unreadable"),
        ("config.json", ZeroDivisionError("surprise"), "unknown_error"),
    ],
)
def test_sources_that_fail(
    saved: Sound, check: Check, caplog: pytest.LogCaptureFixture, file: str, failure: Exception, code: str
):
    with caplog.at_level(logging.WARNING):
        report = check(Wrapped(saved("llama"), {file: failure}))
    assert [found.code for found in report.findings] == [code]
    assert "/secret" not in report.model_dump_json()
    assert code == "source_changed" or caplog.records


def test_a_file_that_got_shorter_has_changed(saved: Sound, check: Check):
    class Longer(Wrapped):
        def files(self) -> list[FolderFile]:
            found = super().files()
            return [
                replace(file, size_bytes=file.size_bytes + 9) if file.name == "config.json" else file for file in found
            ]

        def read(self, file: FolderFile, start: int = 0, length: int | None = None) -> bytes:
            (true,) = (found for found in super().files() if found.name == file.name)
            return super().read(true, start, length)

    assert [found.code for found in check(Longer(saved("llama"))).findings] == ["source_changed"]


def test_a_header_larger_than_the_first_read(copy: Sound, check: Check):
    folder = copy("llama")
    path = folder / "model.safetensors"
    header, data = read_safetensors(path)
    write_safetensors(path, json.dumps(header).encode() + b" " * 200_000, data)
    assert check(folder).findings == ()


@pytest.fixture(scope="module")
def big_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to."""
    folder = tmp_path_factory.mktemp("big")
    write_sparse_llama_70b(folder)
    return folder


def test_70b_takes_seconds_and_reads_little(big_folder: Path, check: Check):
    assert sum(path.stat().st_size for path in big_folder.iterdir()) > 140e9
    shards = sorted(big_folder.glob("*.safetensors"))
    assert len(shards) == 72
    weight_map = json.loads((big_folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(weight_map) == 723
    entry = CatalogEntry(
        base_model="Llama3-70B",
        series="Llama 3",
        architectures=("LlamaForCausalLM",),
        structure={"hidden_size": 8192, "num_hidden_layers": 80},
        max_length_tokens=8192,
    )
    wrapped = Wrapped(big_folder)
    machines = (MachineMemory(name="four cards", memory_bytes=320 << 30),)
    started = time.process_time()
    report = check(wrapped, entry=entry, machines=machines)
    assert time.process_time() - started < 5
    assert report.findings == ()
    assert report.facts.parameters == 70_553_706_496
    assert report.facts.kv_bytes_per_token == 80 * 2 * 8 * 128 * 2
    assert report.read_bytes == sum(size for _, size in wrapped.reads) <= 20_000_000
    reads = Counter(name for name, _ in wrapped.reads)
    assert all(reads[path.name] == 1 for path in shards)
    (found,) = check(big_folder, entry=entry, machines=MACHINES).findings
    assert found.code == "memory_short"


def test_70b_tokenizer_loads(big_folder: Path, tmp_path: Path):
    entry = entry_for("llama").model_copy(update={"structure": {}})
    report = validate(LocalFolder(big_folder), entry, "BF16", tmp_path, ())
    assert codes(report) == set()
    assert codes(report, "warning") == {"memory_short"}
