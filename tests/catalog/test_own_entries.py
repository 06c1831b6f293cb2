"""The operator's own file: what it adds and changes, and what is said of a wrong one."""

from pathlib import Path

import pytest

from app.catalog.catalog import Catalog
from tests.catalog.shipped import CATALOG, entry

OURS = """
- series: Ours
  architectures: [LlamaForCausalLM]
  languages: [en]
  models:
    - base_model: Ours-7B
      aliases: [我们的-7B]
      parameters_b: 7
    - base_model: Ours-13B
      languages: [de]
      recommended_source: s3://weights/ours-13b
"""


@pytest.fixture
def extra(tmp_path: Path) -> Path:
    file = tmp_path / "catalog.yaml"
    file.write_text(OURS, encoding="utf-8")
    return file


def refusal(file: Path) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        Catalog.load(file)
    assert str(file.parent) not in str(caught.value)
    return str(caught.value)


def test_an_operator_adds_entries(extra: Path) -> None:
    catalog = Catalog.load(extra)
    assert len(catalog.entries) == len(CATALOG.entries) + 2
    small, large = catalog.find("ours 7b"), catalog.find("Ours-13B-Instruct")
    assert small is not None
    assert small is catalog.find("我们的-7B")
    assert (small.series, small.languages, small.source_lists) == ("Ours", ("en",), ())
    assert large is not None
    assert (large.languages, large.upload_precisions) == (("de",), ("BF16",))
    assert large.recommended_source == "s3://weights/ours-13b"


def test_an_operator_changes_a_shipped_entry_field_by_field(extra: Path) -> None:
    extra.write_text(
        "- models:\n"
        "    - {base_model: llama3 8b, recommended_source: 's3://weights/llama', recommended_qps: {BF16: 9}}\n"
        "    - {base_model: Baichuan2-13B, custom_weights_only: false, recommended_source: 's3://weights/baichuan'}\n"
        "    - {base_model: Qwen-7B, patch: null}\n"
    )
    catalog = Catalog.load(extra)
    assert [entry.base_model for entry in catalog.entries] == [entry.base_model for entry in CATALOG.entries]
    changed = {"recommended_source": "s3://weights/llama", "recommended_qps": {"BF16": 9}}
    assert catalog.find("Llama3-8B") == entry("Llama3-8B").model_copy(update=changed)
    assert catalog.find("Meta-Llama-3-8B") is catalog.find("Llama3-8B")
    assert catalog.find("Baichuan2-13B") == entry("Baichuan2-13B").model_copy(
        update={"custom_weights_only": False, "recommended_source": "s3://weights/baichuan"}
    )
    assert catalog.find("Qwen-7B") == entry("Qwen-7B").model_copy(update={"patch": None})


def test_a_whole_entry_of_the_operator_s_own_outlives_one_that_is_shipped_later(extra: Path) -> None:
    extra.write_text(
        "- series: Ours\n  models: [{base_model: Yi-6B, architectures: [OursForCausalLM], languages: [de]}]\n"
    )
    found = Catalog.load(extra).find("Yi-6B")
    assert found is not None
    assert (found.series, found.architectures, found.languages) == ("Ours", ("OursForCausalLM",), ("de",))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("{base_model: Llama3-8B, tune: [lora]}", "Llama3-8B: tuning_tokens_per_s_per_card has full, which is not in"),
        (
            "{base_model: Baichuan2-13B, recommended_source: 's3://bucket/f'}",
            "Baichuan2-13B: recommended_source is given, but",
        ),
        ("{base_model: Llama3-8B, colour: red}", "Llama3-8B: colour is not a field of a catalogue entry"),
        (
            "{base_model: Llama3-8B, aliases: [Qwen3-8B]}",
            "Llama3-8B: aliases: Qwen3-8B is already a name of Qwen3-8B in",
        ),
        ("{base_model: Llama3-8B}, {base_model: llama3_8b}", "Llama3-8B: base_model: Llama3-8B is given twice"),
        ("{base_model: A, series: S, architectures: [A]}, {base_model: a}", "A: base_model: A is given twice"),
        ("{base_model: Ours-7B}", "Ours-7B: series: Field required"),
    ],
)
def test_a_change_must_go_with_the_rest_of_the_entry(extra: Path, fields: str, said: str) -> None:
    extra.write_text(f"- models: [{fields}]\n")
    assert refusal(extra).replace("Value error, ", "").startswith(f"catalog.yaml: {said}")


def test_a_file_without_entries_adds_none(extra: Path) -> None:
    extra.write_text("# nothing yet\n")
    assert len(Catalog.load(extra).entries) == len(CATALOG.entries)


@pytest.mark.parametrize(
    ("name", "owner"),
    [("我们的_7b", "Ours-7B in catalog"), ("Meta-Llama-3-8B", "Llama3-8B in llama")],
)
def test_a_name_is_given_once(extra: Path, name: str, owner: str) -> None:
    extra.write_text(OURS + f"    - base_model: {name}\n", encoding="utf-8")
    told = refusal(extra)
    assert told.startswith(f"catalog.yaml: {name}: base_model: {name} is already a name of {owner}")
    assert told.endswith("every name is given once")


def test_an_alias_that_is_taken_is_named(extra: Path) -> None:
    extra.write_text(OURS + "    - base_model: Ours-1B\n      aliases: [Qwen_3_8B]\n", encoding="utf-8")
    assert refusal(extra).startswith("catalog.yaml: Ours-1B: aliases: Qwen_3_8B is already a name of Qwen3-8B in")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("colour: red", "colour is not a field of a catalogue entry"),
        ("parameters_b: seven", "parameters_b: "),
        ("parameters_b: .nan", "parameters_b: "),
        ("languages: en", "languages: "),
        ("tune: [full, qlora]", "tune[1]: "),
        ("upload_precisions: [SmoothQuant-W8A8]", "upload_precisions[0]: "),
        ("upload_precisions: []", "upload_precisions: "),
        ("compress: [FP4]", "compress[0]: "),
        ("architectures: []", "architectures: "),
        ("source_lists: [ours]", "source_lists[0]: "),
        ("max_length_tokens: 0", "max_length_tokens: "),
        ("max_length_tokens: '4096'", "max_length_tokens: "),
        ("deploy: 1", "deploy: "),
        ("structure: {hidden_size: 4096.5}", "structure.hidden_size: "),
        ("recommended_source: /weights", "recommended_source: "),
        ("recommended_source: 's3://Bucket/x'", "recommended_source: "),
        ("recommended_source: 'file:///a/../b'", "recommended_source: "),
        ("recommended_qps: {AWQ-W4A16: 1}", "recommended_qps has AWQ-W4A16, which is not in upload_precisions or"),
        ("compression_minutes: {AWQ-W4A16: [1, 2]}", "compression_minutes has AWQ-W4A16, which is not in compress"),
        ("tuning_tokens_per_s_per_card: {full: [1, 2]}", "tuning_tokens_per_s_per_card has full, which is not in tune"),
        ("tune: [full], tuning_tokens_per_s_per_card: {full: [2, 1]}", "the low end 2 is above the high end 1"),
        ("custom_weights_only: true, recommended_source: 's3://bucket/f'", "recommended_source is given, but"),
        ("aliases: [owner/model]", "aliases[0]: "),
        ("patch: {file: a.py}", "patch.advice: "),
    ],
)
def test_a_wrong_field_is_named_with_its_file_and_entry(extra: Path, fields: str, said: str) -> None:
    extra.write_text(f"- {{series: Ours, architectures: [A], models: [{{base_model: Ours-7B, {fields}}}]}}\n")
    told = refusal(extra)
    assert told.startswith("catalog.yaml: Ours-7B: ")
    assert said in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- series: [", "catalog.yaml: line "),
        ("series: Ours", "catalog.yaml: not a list of series"),
        ("- series: Ours", "catalog.yaml: item 1 is not a series with a list of models"),
        ("- 5", "catalog.yaml: item 1 is not a series"),
        ("- series: Ours\n  models: [Ours-7B]", "catalog.yaml: Ours: a model is not a mapping"),
        ("- series: Ours\n  models: [{parameters_b: 7}]", "catalog.yaml: an entry without base_model: base_model: "),
        ("- series: Ours\n  models: []\n  series: Mine", "catalog.yaml: line 3: series is given twice"),
        ("- series: Ours\n  models:\n  - {base_model: A, deploy: true, deploy: false}", "deploy is given twice"),
        ("- series: Ours\n  models: [{1: 2}]", "catalog.yaml: line 2: a field's name must be a text"),
        ("- !!python/name:os.system ''", "catalog.yaml: line 1: "),
        ("- \x07", "catalog.yaml: "),
    ],
)
def test_a_broken_file_is_named_with_the_line(extra: Path, text: str, said: str) -> None:
    extra.write_text(text)
    assert said in refusal(extra)


def test_a_missing_or_unreadable_file_is_named(extra: Path) -> None:
    extra.unlink()
    assert refusal(extra) == "catalog.yaml: No such file or directory"
    extra.mkdir()
    assert refusal(extra) == "catalog.yaml: Is a directory"
    extra.rmdir()
    extra.write_bytes(b"- series: \xff\xfe")
    assert refusal(extra).startswith("catalog.yaml: ")
