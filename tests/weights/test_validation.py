"""Validation: no false finding on sound folders, and the right one on each broken one."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from app.core.findings import Finding
from app.core.job_specs import MachineMemory
from app.store.local_folder import LocalFolder
from app.weights.validation import validate
from tests.weights.broken_folders import ALL, Broken
from tests.weights.damages import config, generation, tensors, write
from tests.weights.quantized_folders import QUANTIZED, compress, quantize
from tests.weights.safetensors_files import write_tensors
from tests.weights.sound_folders import FAMILIES, SIZES, edit_json, entry_for
from tests.weights.verdicts import MACHINES, Check, Sound, codes


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


def test_an_edited_tokenizer_config_that_is_not_json_is_left_to_the_tokenizer_check(copy: Sound, check: Check):
    folder = copy("llama")
    write("tokenizer_config.json", "{")(folder)
    assert check(folder).findings == ()


def test_nan_in_a_size_is_no_number(copy: Sound, check: Check):
    folder = copy("llama")
    edit_json(folder / "config.json", lambda value: value.update(hidden_size=float("nan")))
    assert codes(check(folder)) == {"structure_mismatch"}
