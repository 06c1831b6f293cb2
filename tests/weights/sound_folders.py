"""Tiny sound weight folders of many families, as transformers saves them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from app.catalog.entries import CatalogEntry

TEMPLATE = (
    "{% for message in messages %}<s>{{ message.role }}: {{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
SIZES = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 257,
}
MOE = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}

FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    # model class, config class, what differs from SIZES
    "llama": ("LlamaForCausalLM", "LlamaConfig", {}),
    "llama-tied": ("LlamaForCausalLM", "LlamaConfig", {"tie_word_embeddings": True}),
    "llama-64": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {"head_dim": 64, "max_position_embeddings": 1024},
    ),  # which vLLM can serve on a CPU
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", {}),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {"head_dim": 16}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {"head_dim": 16}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {}),
    "glm4": ("Glm4ForCausalLM", "Glm4Config", {"head_dim": 16}),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", {"num_local_experts": 4}),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {}),
    "glm": ("GlmForCausalLM", "GlmConfig", {"head_dim": 16}),
    "gpt-oss": ("GptOssForCausalLM", "GptOssConfig", {"num_local_experts": 4, "head_dim": 16}),
    "qwen3-moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", {"num_experts": 4, "head_dim": 16, **MOE}),
    "qwen3-next": (
        "Qwen3NextForCausalLM",
        "Qwen3NextConfig",
        {
            "num_experts": 4,
            "head_dim": 16,
            "shared_expert_intermediate_size": 32,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "layer_types": ["linear_attention", "full_attention"],
            **MOE,
        },
    ),
    "glm4-moe": (
        "Glm4MoeForCausalLM",
        "Glm4MoeConfig",
        {"n_routed_experts": 4, "head_dim": 16, "first_k_dense_replace": 1, **MOE},
    ),
    "deepseek-v3": (
        "DeepseekV3ForCausalLM",
        "DeepseekV3Config",
        {
            "n_routed_experts": 8,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 8,
            "v_head_dim": 16,
            **MOE,
        },
    ),
    "gemma3-text": ("Gemma3ForCausalLM", "Gemma3TextConfig", {"head_dim": 16}),
    "gemma3": ("Gemma3ForConditionalGeneration", "Gemma3Config", {"head_dim": 16}),
    "llama4": ("Llama4ForConditionalGeneration", "Llama4Config", {"head_dim": 16}),
}


def write_sound(family: str, folder: Path, **save: Any) -> None:
    """Save a tiny model of this family, with random weights in bfloat16 and a tokenizer."""
    class_name, config_name, differs = FAMILIES[family]
    config_class = getattr(transformers, config_name)
    torch.manual_seed(0)
    fields = {**SIZES, **differs}
    if family == "gemma3":
        vision = {**VISION, "image_size": 28, "patch_size": 14}
        config = config_class(text_config=fields, vision_config=vision, mm_tokens_per_image=4)
    elif family == "llama4":
        text = {**fields, "intermediate_size_mlp": 128, "num_local_experts": 2, "interleave_moe_layer_step": 2}
        vision = {**VISION, "image_size": 28, "patch_size": 14, "vision_output_dim": 64, "projector_output_dim": 64}
        vision |= {"projector_input_dim": 64, "intermediate_size": 128}
        config = config_class(text_config=text, vision_config=vision)
    else:
        config = config_class(**fields)
    model = getattr(transformers, class_name)(config).to(torch.bfloat16)
    model.save_pretrained(folder, **save)
    write_tokenizer(folder)


def write_tokenizer(folder: Path) -> None:
    """Bytes, and a few special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    )
    fast.save_pretrained(folder)


def entry_for(family: str, **fields: Any) -> CatalogEntry:
    """The catalogue's entry of such a folder."""
    differs = FAMILIES[family][2]
    structure = {
        name: differs.get(name, SIZES[name]) for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    }
    return CatalogEntry(
        **{
            "base_model": f"Tiny-{family}",
            "series": "test",
            "architectures": (FAMILIES[family][0],),
            "upload_precisions": ("BF16", "W8A8_FP8", "AWQ-W4A16", "W4A8"),
            "structure": structure,
            **fields,
        }
    )


def edit_json(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file in place; a `None` from `edit` means that it changed its argument."""
    value = json.loads(path.read_text())
    changed = edit(value)
    path.write_text(json.dumps(value if changed is None else changed))
