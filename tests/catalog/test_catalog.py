"""Base models are found however their names are written, and others are not."""

import pytest

from tests.catalog.shipped import CATALOG, entry


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
