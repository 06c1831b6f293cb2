"""The shipped catalogue against the product documents' tables, which are written out here once more."""

from pathlib import Path

import pytest

from app.catalog.catalog import Catalog
from app.catalog.entries import CatalogEntry

CATALOG = Catalog.load()

ARK_CUSTOM = ["Qwen3-0.6B", "Qwen3-8B", "Qwen3-14B", "Qwen3-32B", "Qwen2.5-72B", "GLM-4.5-Air"]
ARK_UNIT = ["Qwen2.5-0.5B", "Qwen2.5-3B", "Qwen2.5-7B", "Qwen3-8B", "Llama-3-8B"]
VERTEX = [
    *["Llama-2-7B", "Llama-2-13B", "Llama-3.1-8B", "Llama-3.1-70B", "Llama-3.2-1B", "Llama-3.2-3B"],
    *["Llama-4-Scout-17B", "Llama-4-Maverick-17B", "CodeLlama-13B"],
    *["Gemma-2-9B", "Gemma-2-27B", "Gemma-3-1B", "Gemma-3-4B", "Gemma-3-12B", "Gemma-3-27B"],
    *["Medgemma-4B", "Medgemma-27B-text"],
    *["Qwen2-1.5B", "Qwen2.5-0.5B", "Qwen2.5-1.5B", "Qwen2.5-7B", "Qwen2.5-32B"],
    *["Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-8B", "Qwen3-32B", "Qwen3-Coder-480B-A35B-Instruct"],
    *["Qwen3-Next-80B-A3B-Instruct", "Qwen3-Next-80B-A3B-Thinking"],
    *["Deepseek-R1", "Deepseek-V3", "DeepSeek-V3.1"],
    *["Mistral-7B-v0.1", "Mixtral-8x7B-v0.1", "Mistral-Nemo-Base-2407"],
    *["Phi-4-reasoning", "gpt-oss-20B", "gpt-oss-120B"],
]

TABLE_4_1 = {
    "GLM-4": (["dialogue", "long-text-reasoning", "code-generation"], ["zh", "en"]),
    "ChatGLM3": (["dialogue", "mathematical-reasoning", "code-generation"], ["zh", "en"]),
    "Baichuan": (["dialogue", "mathematical-reasoning", "code-generation", "translation"], ["zh", "en"]),
    "Llama 2": (["dialogue", "creative-writing", "summarization"], ["en"]),
    "Llama 3": (["dialogue", "creative-writing", "summarization"], ["en"]),
    "Llama 3.1": (["dialogue", "creative-writing", "summarization"], ["en"]),
    "Yi": (["code-generation", "mathematical-reasoning", "dialogue"], ["zh", "en"]),
    "Qwen 1.5": (["code-generation", "mathematical-reasoning", "dialogue"], ["en"]),
    "Qwen": (
        ["dialogue", "creative-writing", "summarization", "translation", "code-generation", "mathematical-reasoning"],
        ["zh", "en"],
    ),
    "Qwen 2": (["multilingual", "mathematical-reasoning", "dialogue"], ["en"]),
}

TABLE_6_4 = {
    # tokens/s/card: (full, lora), each (low, high); the models are those of table 6-1
    "Baichuan2-13B": ((1200, 1600), (1300, 1800)),
    "ChatGLM3-6B": ((2000, 2700), (2300, 3100)),
    "Llama2-13B": ((1300, 1800), (1400, 1900)),
    "Llama2-70B": ((300, 400), (400, 500)),
    "Llama2-7B": ((3100, 4200), (3500, 4700)),
    "Llama3-70B": ((300, 400), (300, 500)),
    "Llama3-8B": ((2100, 2800), (2300, 3100)),
    "Qwen-14B": ((1200, 1600), (1400, 1900)),
    "Qwen-72B": ((300, 400), (300, 500)),
    "Qwen-7B": ((2100, 2900), (2200, 3000)),
    "Qwen1.5-14B": ((1300, 1700), (1400, 1800)),
    "Qwen1.5-32B": ((600, 800), (700, 900)),
    "Qwen1.5-72B": ((300, 400), (300, 500)),
    "Qwen1.5-7B": ((2200, 3000), (2600, 3600)),
    "Qwen2-0.5B": ((12800, 17300), (12800, 17300)),
    "Qwen2-1.5B": ((7300, 9800), (7300, 9900)),
    "Qwen2-72B": ((300, 300), (300, 400)),
    "Qwen2-72B-1K": ((300, 300), (300, 400)),
    "Qwen2-7B": ((2300, 3200), (2600, 3500)),
}

TABLE_7_4 = {
    # minutes: (SmoothQuant-W8A8, AWQ-W4A16), each (low, high); None: not offered (table 7-2)
    "Llama2-13B": ((10, 20), (60, 60)),
    "Llama2-70B": ((40, 40), (180, 180)),
    "Llama2-7B": ((10, 20), (40, 40)),
    "Llama3-70B": ((40, 40), (180, 180)),
    "Llama3-8B": ((10, 20), (40, 40)),
    "Qwen1.5-14B": ((10, 20), (60, 60)),
    "Qwen1.5-72B": ((40, 40), (180, 180)),
    "Qwen1.5-7B": ((10, 20), (40, 40)),
    "Qwen2-72B": ((40, 40), None),
    "Qwen2-72B-1K": ((40, 40), None),
}

TABLE_8_2 = {
    "Baichuan2-13B": 1,
    "ChatGLM3-6B": 3,
    "Llama2-13B": 1,
    "Llama2-13B-AWQ": 1,
    "Llama2-13B-SQ": 1,
    "Llama2-70B": 1,
    "Llama2-70B-AWQ": 1,
    "Llama2-70B-SQ": 1,
    "Llama2-7B": 3,
    "Llama2-7B-AWQ": 3,
    "Llama2-7B-SQ": 3,
    "Llama3-70B": 1,
    "Llama3-70B-AWQ": 1,
    "Llama3-70B-SQ": 1,
    "Llama3-8B": 3,
    "Llama3-8B-AWQ": 3,
    "Llama3-8B-SQ": 6,
    "Llama3.1-70B": 1,
    "Llama3.1-8B": 3,
    "Qwen1.5-14B": 1,
    "Qwen1.5-14B-AWQ": 1,
    "Qwen1.5-14B-SQ": 1,
    "Qwen1.5-32B": 1,
    "Qwen1.5-72B": 1,
    "Qwen1.5-72B-AWQ": 1,
    "Qwen1.5-72B-SQ": 1,
    "Qwen1.5-7B": 3,
    "Qwen1.5-7B-AWQ": 3,
    "Qwen1.5-7B-SQ": 3,
    "Qwen-14B": 1,
    "Qwen2-72B": 1,
    "Qwen2-72B-AWQ": 1,
    "Qwen2-72B-SQ": 1,
    "Qwen2-72B-1K": 1,
    "Qwen2-72B-32K": 1,
    "Qwen2-7B": 3,
    "Qwen2-7B-AWQ": 3,
    "Qwen-72B": 1,
    "Qwen-7B": 3,
    "Qwen2-1.5B": 6,
    "Qwen2-0.5B": 9,
    "GLM-4-9B": 3,
    "Yi-34B": 1,
    "Yi-6B": 3,
}
SUFFIXES = {"BF16": "", "AWQ-W4A16": "-AWQ", "SmoothQuant-W8A8": "-SQ"}

ASKS_PADDING_RIGHT = ["ChatGLM3-6B", "GLM-4-9B"]
ASKS_SUPPORT_FLAGS = ["Qwen-7B", "Qwen-14B", "Qwen-72B"]

PADDING_LEFT_PY = """
        # Load from model defaults
        assert self.padding_side == "left"
        if needs_to_be_padded:
            difference = max_length - len(required_input)
            if "attention_mask" in encoded_inputs:
                encoded_inputs["attention_mask"] = [0] * difference + encoded_inputs["attention_mask"]
            if "position_ids" in encoded_inputs:
                encoded_inputs["position_ids"] = [0] * difference + encoded_inputs["position_ids"]
            encoded_inputs[self.model_input_names[0]] = [self.pad_token_id] * difference + required_input
"""
PADDING_RIGHT_PY = """
        # Load from model defaults
        # assert self.padding_side == "left"
        if needs_to_be_padded:
            difference = max_length - len(required_input)
            if "attention_mask" in encoded_inputs:
                encoded_inputs["attention_mask"] = encoded_inputs["attention_mask"] + [0] * \\
                    difference
            if "position_ids" in encoded_inputs:
                encoded_inputs["position_ids"] = encoded_inputs["position_ids"] + [0] * difference
            encoded_inputs[self.model_input_names[0]] = required_input + [self.pad_token_id] * difference
"""


def entry(name: str) -> CatalogEntry:
    found = CATALOG.find(name)
    assert found is not None, name
    return found


def listed(source_list: str) -> list[CatalogEntry]:
    return [entry for entry in CATALOG.entries if source_list in entry.source_lists]


def names(entries: list[CatalogEntry]) -> set[str]:
    return {entry.base_model for entry in entries}


# What is shipped


@pytest.mark.parametrize(
    ("source_list", "models"),
    [
        ("ark-custom", ARK_CUSTOM),
        ("ark-unit", ARK_UNIT),
        ("vertex", VERTEX),
        ("maas", [name for name in TABLE_8_2 if not name.endswith(("-AWQ", "-SQ"))]),
    ],
)
def test_every_document_s_list_is_there_and_nothing_more(source_list: str, models: list[str]) -> None:
    assert names(listed(source_list)) == {entry(name).base_model for name in models}
    assert len(listed(source_list)) == len(models)


def test_our_own_models_are_ordinary_entries() -> None:
    tiny = {"Tiny-Gemma2", "Tiny-Glm4", "Tiny-Llama", "Tiny-Mistral", "Tiny-Mixtral", "Tiny-Qwen2", "Tiny-Qwen3"}
    assert names(listed("modelunit")) == tiny | {"SmolLM2-135M-Instruct"}
    for found in listed("modelunit"):
        assert found.upload_precisions == ("BF16", "W8A8_FP8", "AWQ-W4A16", "W4A8")
        assert bool(found.structure) == (found.series != "test")


def test_every_entry_is_on_a_list_and_can_be_deployed() -> None:
    assert all(entry.source_lists and entry.deploy for entry in CATALOG.entries)
    assert [entry.base_model for entry in CATALOG.entries] == sorted(entry.base_model for entry in CATALOG.entries)


def test_series_types_scenarios_and_languages_are_those_of_table_4_1() -> None:
    shown = {entry.series: (list(entry.scenarios), list(entry.languages)) for entry in listed("maas")}
    assert shown == TABLE_4_1
    assert {entry.type for entry in CATALOG.entries} == {"text-generation"}


def test_tuning_is_that_of_tables_6_1_and_6_4() -> None:
    shipped = {
        entry.base_model: tuple(entry.tuning_tokens_per_s_per_card[kind] for kind in ("full", "lora"))
        for entry in listed("maas")
        if entry.tune
    }
    assert len(TABLE_6_4) == 19
    assert shipped == TABLE_6_4
    assert {entry(name).tune for name in TABLE_6_4} == {("full", "lora")}


def test_compression_is_that_of_tables_7_2_and_7_4() -> None:
    shipped = {
        entry.base_model: tuple(entry.compression_minutes.get(kind) for kind in ("SmoothQuant-W8A8", "AWQ-W4A16"))
        for entry in listed("maas")
        if entry.compress
    }
    assert shipped == TABLE_7_4
    for name in TABLE_7_4:
        assert set(entry(name).compress) == set(entry(name).compression_minutes)


def test_ark_s_custom_models_are_compressed_to_fp8() -> None:
    assert names([entry for entry in CATALOG.entries if "W8A8_FP8" in entry.compress]) == {
        *ARK_CUSTOM,
        "SmolLM2-135M-Instruct",
    }


def test_recommended_qps_are_those_of_table_8_2() -> None:
    shipped = {
        entry.base_model + SUFFIXES[precision]: qps
        for entry in CATALOG.entries
        for precision, qps in entry.recommended_qps.items()
    }
    assert len(TABLE_8_2) == 44
    assert shipped == TABLE_8_2


def test_lengths_are_4096_but_for_two() -> None:
    others = {entry.base_model: entry.max_length_tokens for entry in CATALOG.entries if entry.max_length_tokens != 4096}
    assert others == {"Qwen-14B": 2048, "Qwen2-72B-32K": 32768}


def test_what_may_be_uploaded_follows_from_the_lists() -> None:
    """FP8 from Ark's custom models, W8A8 and W4A8 from its units, AWQ where MaaS has a template, none from Vertex."""
    for found in CATALOG.entries:
        if "modelunit" in found.source_lists:
            continue
        allowed = {"BF16"}
        if "ark-custom" in found.source_lists:
            allowed |= {"W8A8_FP8"}
        if "ark-unit" in found.source_lists:
            allowed |= {"W8A8_FP8", "W4A8"}
        if f"{found.base_model}-AWQ" in TABLE_8_2:
            allowed |= {"AWQ-W4A16"}
        assert set(found.upload_precisions) == allowed, found.base_model


def test_only_baichuan_needs_custom_weights() -> None:
    assert names([entry for entry in CATALOG.entries if entry.custom_weights_only]) == {"Baichuan2-13B"}


def test_five_models_need_a_patch_of_their_own_file() -> None:
    files = {entry.base_model: entry.patch.file for entry in CATALOG.entries if entry.patch}
    assert files == dict.fromkeys(ASKS_PADDING_RIGHT, "tokenization_chatglm.py") | dict.fromkeys(
        ASKS_SUPPORT_FLAGS, "modeling_qwen.py"
    )


@pytest.mark.parametrize("name", ASKS_PADDING_RIGHT)
def test_the_padding_patch_is_two_edits(name: str) -> None:
    patch = entry(name).patch
    assert patch is not None
    assert len(patch.unmet(PADDING_LEFT_PY)) == 4
    assert patch.unmet(PADDING_RIGHT_PY) == []
    assert patch.unmet(PADDING_RIGHT_PY.replace("# assert", "assert")) == ['has assert self.padding_side == "left"']


@pytest.mark.parametrize("name", ASKS_SUPPORT_FLAGS)
def test_the_support_flags_patch_is_two_edits(name: str) -> None:
    patch = entry(name).patch
    assert patch is not None
    before = [
        "SUPPORT_BF16 = SUPPORT_CUDA and torch.cuda.is_bf16_supported()",
        "SUPPORT_FP16 = SUPPORT_CUDA and torch.cuda.get_device_capability(0)[0] >= 7",
    ]
    after = ["SUPPORT_BF16 = SUPPORT_CUDA and True", "SUPPORT_FP16 = SUPPORT_CUDA and True"]
    assert len(patch.unmet("\n".join(before))) == 2
    assert patch.unmet("\n".join([after[0], before[1]])) == ["lacks SUPPORT_FP16 = SUPPORT_CUDA and True"]
    assert patch.unmet("\n".join(after)) == []


def test_structures_add_up_to_the_size_in_the_name() -> None:
    """A typing error in one of them would show here: dense models, with input and output embeddings tied or not."""
    checked = 0
    for found in CATALOG.entries:
        shape, size_b = found.structure, found.parameters_b
        fields = {"num_attention_heads", "num_key_value_heads", "num_hidden_layers", "vocab_size"}
        if size_b is None or not fields <= shape.keys() or any("expert" in field for field in shape):
            continue
        hidden, heads, kv_heads = shape["hidden_size"], shape["num_attention_heads"], shape["num_key_value_heads"]
        attention = 2 * hidden * shape.get("head_dim", hidden // heads) * (heads + kv_heads)
        layers = shape["num_hidden_layers"] * (attention + 3 * hidden * shape["intermediate_size"])
        tied = layers + hidden * shape["vocab_size"]
        sizes = tied / 1e9, (tied + hidden * shape["vocab_size"]) / 1e9
        assert any(0.9 < size / size_b < 1.25 for size in sizes), f"{found.base_model}: {sizes}"
        checked += 1
    assert checked >= 35


def test_architectures_and_structures_are_what_transformers_knows() -> None:
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    model_types = {
        name: model_type
        for mapping in (
            modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
            modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        )
        for model_type, name in mapping.items()
        if isinstance(name, str)
    }
    unknown = set()
    for found in CATALOG.entries:
        for name in found.architectures:
            if name not in model_types:
                unknown.add(name)
                continue
            config = AutoConfig.for_model(model_types[name]).get_text_config()
            assert [field for field in found.structure if not hasattr(config, field)] == [], found.base_model
    assert unknown == {"BaichuanForCausalLM", "ChatGLMForConditionalGeneration", "ChatGLMModel", "QWenLMHeadModel"}


# Finding


@pytest.mark.parametrize(
    ("asked", "base_model"),
    [
        ("Qwen2.5-7B", "Qwen2.5-7B"),
        ("qwen2.5 7b", "Qwen2.5-7B"),
        ("QWEN_2.5_7B", "Qwen2.5-7B"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen2.5-7B"),
        ("meta-llama/Llama-2-7b-chat-hf", "Llama2-7B"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "Llama3-8B"),
        ("Llama-3.1-70B", "Llama3.1-70B"),
        ("Llama-4-Scout-17B-16E-Instruct", "Llama-4-Scout-17B"),
        ("THUDM/glm-4-9b-chat-hf", "GLM-4-9B"),
        ("chatglm3 6b", "ChatGLM3-6B"),
        ("baichuan2-13b-chat", "Baichuan2-13B"),
        ("google/gemma-3-1b-pt", "Gemma-3-1B"),
        ("medgemma-27b-text-it", "MedGemma-27B-text"),
        ("Mistral-7B-Instruct-v0.1", "Mistral-7B-v0.1"),
        ("Mistral-Nemo-Instruct-2407", "Mistral-Nemo-Base-2407"),
        ("Qwen3-8B-Base", "Qwen3-8B"),
        ("qwen3-next-80b-a3b", "Qwen3-Next-80B-A3B-Instruct"),
        ("qwen3-next-80b-a3b-thinking", "Qwen3-Next-80B-A3B-Thinking"),
        ("openai/gpt-oss-20b", "gpt-oss-20B"),
        ("SmolLM2-135M", "SmolLM2-135M-Instruct"),
        ("通义千问2-7B", "Qwen2-7B"),
        ("通义千问-7b-chat", "Qwen-7B"),
        ("ｑｗｅｎ２-7B", "Qwen2-7B"),
    ],
)
def test_names_are_found_however_they_are_written(asked: str, base_model: str) -> None:
    assert entry(asked).base_model == base_model


@pytest.mark.parametrize(
    "asked",
    [
        *["", " ", "-", "/", "Qwen", "7B", "instruct", "Qwen2.5-7", "Qwen2.57B", "Qwen25-7B"],
        *["gemma-31b", "Llama-31-8B", "ChatGLM3-6B-32K", "CodeLlama-13b-Python-hf", "Qwen2.5-7B-Instruct-1M"],
        *["Qwen2.5-7B-AWQ", "Yi-1.5-6B", "Qwen2.5-Coder-7B"],
    ],
)
def test_other_models_are_not_taken_for_one_of_ours(asked: str) -> None:
    assert CATALOG.find(asked) is None


def test_every_name_and_alias_finds_its_entry() -> None:
    for found in CATALOG.entries:
        for name in (found.base_model, *found.aliases):
            assert CATALOG.find(name) is found
            assert CATALOG.find(name.upper().replace("-", "_")) is found


# The operator's own file

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
