"""The shipped catalogue against the product documents' tables, and against what transformers knows."""

import pytest

from app.catalog.entries import CatalogEntry
from tests.catalog.documents import (
    ARK_CUSTOM,
    ARK_UNIT,
    ASKS_PADDING_RIGHT,
    ASKS_SUPPORT_FLAGS,
    PADDING_LEFT_PY,
    PADDING_RIGHT_PY,
    SUFFIXES,
    TABLE_4_1,
    TABLE_6_4,
    TABLE_7_4,
    TABLE_8_2,
    VERTEX,
)
from tests.catalog.shipped import CATALOG, entry


def listed(source_list: str) -> list[CatalogEntry]:
    return [entry for entry in CATALOG.entries if source_list in entry.source_lists]


def names(entries: list[CatalogEntry]) -> set[str]:
    return {entry.base_model for entry in entries}


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
        *names(listed("modelunit")),
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
