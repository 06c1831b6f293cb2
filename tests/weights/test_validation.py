"""Validation: no false finding on sound folders, the right one on each broken one, little read, nothing believed."""

import json
import logging
import shutil
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.bench.big_folder import write_sparse_llama_70b
from app.catalog.entries import CatalogEntry
from app.core.findings import Finding, Report
from app.core.job_specs import MachineMemory
from app.store.folders import Folder, FolderFile, SourceChanged
from app.store.local_folder import LocalFolder
from app.store.object_store import StoreError
from app.weights.validation import validate
from tests.weights.broken_folders import ALL, Broken, config, generation, tensors, write, write_tensors
from tests.weights.sound_folders import (
    FAMILIES,
    QUANTIZED,
    SIZES,
    compress,
    edit_json,
    entry_for,
    quantize,
    write_sound,
)

MACHINES = (MachineMemory(name="big", memory_bytes=80 << 30),)

Sound = Callable[[str], Path]
Check = Callable[..., Report]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """Sound folders by family, each saved once; not to be written to."""
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp("sound") / family
            if family == "sharded":
                write_sound("llama", folder, max_shard_size="100KB")
            else:
                write_sound(family, folder)
            made[family] = folder
        return made[family]

    return get


@pytest.fixture
def copy(saved: Sound, tmp_path: Path) -> Sound:
    """Copies of sound folders, to be broken."""

    def get(family: str) -> Path:
        return Path(shutil.copytree(saved(family), tmp_path / family))

    return get


@pytest.fixture
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Validate a folder, without loading its tokenizer unless told otherwise."""

    def run(folder: Path | Folder, family: str = "llama", precision: str = "BF16", **options: Any) -> Report:
        entry = options.pop("entry", None) or entry_for(family)
        options = {"machines": MACHINES, "tokenizer_check": lambda folder, rows: [], **options}
        source = LocalFolder(folder) if isinstance(folder, Path) else folder
        return validate(source, entry, precision, tmp_path_factory.mktemp("work"), **options)  # type: ignore[arg-type]

    return run


def codes(report: Report, severity: str = "error") -> set[str]:
    return {found.code for found in report.findings if found.severity == severity}


@pytest.mark.parametrize("family", FAMILIES)
def test_sound_folders_have_no_findings(saved: Sound, check: Check, family: str):
    report = check(saved(family), family)
    assert report.findings == ()
    assert report.facts.architecture == FAMILIES[family][0]
    assert report.facts.vocabulary == SIZES["vocab_size"]


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3"])
def test_sound_folders_have_tokenizers_that_load(saved: Sound, tmp_path: Path, family: str):
    report = validate(LocalFolder(saved(family)), entry_for(family), "BF16", tmp_path, MACHINES)
    assert report.findings == ()


@pytest.mark.parametrize("form", QUANTIZED)
def test_sound_quantized_folders_have_no_findings(copy: Sound, check: Check, form: str):
    folder = copy("llama")
    quantize(folder, form)
    precision = QUANTIZED[form][0]
    # As by the platform's own compression, of which alone SmoothQuant-W8A8 comes.
    entry = entry_for("llama").model_copy(update={"upload_precisions": (precision,)})
    assert check(folder, precision=precision, entry=entry).findings == ()


@pytest.mark.parametrize(
    ("preset", "precision"),
    [
        ("W8A8", "SmoothQuant-W8A8"),
        ("W4A16", "AWQ-W4A16"),
        ("W4A16_ASYM", "AWQ-W4A16"),
        ("FP8", "W8A8_FP8"),
        ("FP8_DYNAMIC", "W8A8_FP8"),
        ("FP8_BLOCK", "W8A8_FP8"),
        ("W4A8", "W4A8"),
    ],
)
@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_what_compressed_tensors_writes_is_sound(copy: Sound, check: Check, family: str, preset: str, precision: str):
    folder = copy(family)
    compress(folder, preset)
    entry = entry_for(family).model_copy(update={"upload_precisions": (precision,)})
    assert check(folder, family, precision=precision, entry=entry).findings == ()


def test_shards_with_an_index_are_sound(saved: Sound, check: Check):
    assert len(list(saved("sharded").glob("*.safetensors"))) == 3
    assert check(saved("sharded")).findings == ()


@pytest.mark.parametrize("broken", ALL, ids=lambda broken: broken.name)
def test_broken_folders(copy: Sound, check: Check, broken: Broken):
    folder = copy(broken.base)
    broken.damage(folder)
    family = "llama" if broken.base == "sharded" else broken.base
    report = check(folder, precision=broken.precision, entry=entry_for(family, **broken.entry))
    assert codes(report) == broken.codes, report.findings
    assert codes(report, "warning") == broken.warnings, report.findings
    about = [found for found in report.findings if found.code in broken.codes | broken.warnings]
    assert any(broken.file in (None, found.file) and broken.tensor in (None, found.tensor) for found in about), about
    assert all(found.fix and found.message for found in report.findings)
    assert str(folder.parent) not in report.model_dump_json()


def test_the_corpus_is_large_and_its_names_are_unique():
    assert len(ALL) >= 45
    assert not [name for name, count in Counter(broken.name for broken in ALL).items() if count > 1]


def test_facts(saved: Sound, check: Check):
    folder = saved("llama-tied")
    facts = check(folder, "llama-tied").facts
    inner = 2 * (2 * 64 + 3 * 64 * 128 + 2 * 64 * 64 + 2 * 32 * 64)
    assert facts.parameters == 320 * 64 + inner + 64
    assert facts.weights_bytes == 2 * facts.parameters
    assert facts.max_length_tokens == 512
    assert facts.kv_bytes_per_token == 2 * 2 * 32 * 2


def test_several_findings_are_reported_together(copy: Sound, check: Check):
    folder = copy("llama")
    config(intermediate_size=96, quantization_config={"quant_method": "gptq"})(folder)
    generation(temperature=0.2)(folder)
    write("setup.py", "")(folder)
    tensors(lambda found: found.update(x=("F32", [1])))(folder)
    report = check(folder, machines=(MachineMemory(name="tiny", memory_bytes=1000),))
    assert codes(report) == {
        "structure_mismatch",
        "quantization_config_extra",
        "do_sample_inconsistent",
        "code_refused",
        "memory_short",
    }


def test_many_findings_of_a_kind_are_counted(copy: Sound, check: Check):
    folder = copy("llama")
    write_tensors(folder / "model.safetensors", {f"t{place}": ("BF16", [1]) for place in range(500)})
    findings = check(folder).findings
    assert len(findings) < 30
    assert "490 more like the others" in [found.found for found in findings]


def test_leftovers_do_no_harm(copy: Sound, check: Check):
    folder = copy("llama-tied")
    tensors(
        lambda found: found.update(
            {
                "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [8]),
                "lm_head.weight": ("BF16", [320, 64]),
                "model.norm.weight": ("F32", [64]),
            }
        )
    )(folder)
    write("training_args.bin", "x")(folder)
    write("original/params.json", "{}")(folder)
    write("original/consolidated.00.pth", "x")(folder)
    write("consolidated.safetensors", "x")(folder)
    assert check(folder, "llama-tied").findings == ()


def test_one_of_two_tied_tensors_is_enough(copy: Sound, check: Check):
    folder = copy("llama-tied")

    def only_head(found: dict[str, Any]) -> None:
        found["lm_head.weight"] = found.pop("model.embed_tokens.weight")

    tensors(only_head)(folder)
    assert check(folder, "llama-tied").findings == ()


FORMER_NAMES = {
    "as first published": [("vision_tower.", "vision_tower.vision_model.")],
    "of transformers 4": [
        ("language_model.lm_head.", "lm_head."),
        ("language_model.model.", "model.language_model."),
        ("vision_tower.", "model.vision_tower.vision_model."),
        ("multi_modal_projector.", "model.multi_modal_projector."),
    ],
}


@pytest.mark.parametrize("form", FORMER_NAMES)
def test_other_names_of_the_same_weights_are_known(copy: Sound, check: Check, form: str):
    folder = copy("gemma3")

    def rename_all(found: dict[str, Any]) -> None:
        for name in list(found):
            for old, new in FORMER_NAMES[form]:
                if name.startswith(old):
                    found[new + name.removeprefix(old)] = found.pop(name)
                    break

    tensors(rename_all)(folder)
    assert check(folder, "gemma3").findings == ()
    tensors(lambda found: found.pop(next(name for name in found if "vision_model.encoder" in name)))(folder)
    assert codes(check(folder, "gemma3")) == {"weights_unloadable"}


def test_experts_may_be_fused(copy: Sound, check: Check):
    folder = copy("mixtral")

    def fuse(found: dict[str, Any]) -> None:
        for name in [name for name in found if ".experts." in name]:
            del found[name]
        for layer in range(2):
            experts = f"model.layers.{layer}.mlp.experts"
            found[f"{experts}.gate_up_proj"] = ("BF16", [4, 256, 64])
            found[f"{experts}.down_proj"] = ("BF16", [4, 64, 128])

    tensors(fuse)(folder)
    assert check(folder, "mixtral").findings == ()
    tensors(lambda found: found.update({"model.layers.1.mlp.experts.down_proj": ("BF16", [3, 64, 128])}))(folder)
    findings = check(folder, "mixtral").findings
    assert {found.code for found in findings} == {"weights_unloadable"}
    assert "model.layers.1.mlp.experts.down_proj" in {found.tensor for found in findings}


def test_pickled_weights_are_checked_but_for_their_tensors(copy: Sound, check: Check):
    folder = copy("llama")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    report = check(folder)
    assert report.findings == ()
    assert report.facts.weights_bytes == (folder / "pytorch_model.bin").stat().st_size
    config(num_hidden_layers=3)(folder)
    assert codes(check(folder)) == {"structure_mismatch"}


def test_a_patched_file_is_read_and_not_refused(copy: Sound, check: Check):
    folder = copy("llama")
    (patched,) = (broken for broken in ALL if broken.name == "not patched")
    write("tokenization_tiny.py", "# assert self.left\n")(folder)
    assert check(folder, entry=entry_for("llama", **patched.entry)).findings == ()
    write("modeling_tiny.py", "")(folder)
    assert codes(check(folder, entry=entry_for("llama", **patched.entry))) == {"code_refused"}


def test_memory(saved: Sound, check: Check):
    tight = MachineMemory(name="tight", memory_bytes=300_000)
    (found,) = check(saved("llama"), machines=(tight,)).findings
    assert (found.code, found.severity) == ("memory_short", "error")
    assert "tight" in (found.expected or "")
    assert check(saved("llama"), machines=(tight, *MACHINES)).findings == ()
    (found,) = check(saved("llama"), machines=()).findings
    assert (found.code, found.severity) == ("memory_short", "warning")


def test_the_tokenizer_is_checked_in_a_folder_without_weights(saved: Sound, check: Check):
    seen: list[Any] = []

    def look(folder: Path, rows: int | None) -> list[Finding]:
        seen.extend([sorted(path.name for path in folder.iterdir()), rows])
        return []

    check(saved("llama"), tokenizer_check=look)
    assert seen == [["chat_template.jinja", "config.json", "tokenizer.json", "tokenizer_config.json"], 320]


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
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
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
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    padded = data[8 : 8 + length] + b" " * 200_000
    path.write_bytes(len(padded).to_bytes(8, "little") + padded + data[8 + length :])
    assert check(folder).findings == ()


def test_70b_takes_seconds_and_reads_little(tmp_path: Path, check: Check):
    folder = tmp_path / "big"
    write_sparse_llama_70b(folder)
    assert sum(path.stat().st_size for path in folder.iterdir()) > 140e9
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) == 72
    weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(weight_map) == 723
    entry = CatalogEntry(
        base_model="Llama3-70B",
        series="Llama 3",
        architectures=("LlamaForCausalLM",),
        structure={"hidden_size": 8192, "num_hidden_layers": 80},
        max_length_tokens=8192,
    )
    wrapped = Wrapped(folder)
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
    (found,) = check(folder, entry=entry, machines=MACHINES).findings
    assert found.code == "memory_short"


def test_70b_tokenizer_loads(tmp_path: Path):
    write_sparse_llama_70b(tmp_path / "big")
    entry = entry_for("llama").model_copy(update={"structure": {}})
    (tmp_path / "work").mkdir()
    report = validate(LocalFolder(tmp_path / "big"), entry, "BF16", tmp_path / "work", ())
    assert codes(report) == set()
    assert codes(report, "warning") == {"memory_short"}


def test_an_edited_tokenizer_config_that_is_not_json_is_left_to_the_tokenizer_check(copy: Sound, check: Check):
    folder = copy("llama")
    write("tokenizer_config.json", "{")(folder)
    assert check(folder).findings == ()


def test_nan_in_a_size_is_no_number(copy: Sound, check: Check):
    folder = copy("llama")
    edit_json(folder / "config.json", lambda value: value.update(hidden_size=float("nan")))
    assert codes(check(folder)) == {"structure_mismatch"}
