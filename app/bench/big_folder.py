"""A weight folder shaped like Llama-3-70B: true headers and configs, a tokenizer of about its size, no weights."""

import json
import os
import struct
from itertools import islice, product
from pathlib import Path
from typing import Any

SHARDS = 72

_LAYERS, _HIDDEN, _INNER, _HEADS, _KV_HEADS, _VOCABULARY = 80, 8192, 28672, 64, 8, 128256
_BF16_BYTES = 2
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def write_sparse_llama_70b(folder: Path) -> None:
    """Write it into `folder`, which may exist: 141 GB by their sizes, about 10 MB on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", _config())
    _write_json(folder / "generation_config.json", {"bos_token_id": 128000, "eos_token_id": [128001, 128004]})
    _write_json(folder / "tokenizer.json", _tokenizer())
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": _SPECIAL[0],
            "eos_token": _SPECIAL[1],
            "model_max_length": 8192,
            "chat_template": _TEMPLATE,
        },
    )
    shards = _shards()
    weight_map = {}
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_shard(folder / name, tensors)
        weight_map.update(dict.fromkeys(tensors, name))
    total = sum(map(_size_bytes, _tensors().values()))
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _config() -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "hidden_act": "silu",
        "hidden_size": _HIDDEN,
        "intermediate_size": _INNER,
        "max_position_embeddings": 8192,
        "model_type": "llama",
        "num_attention_heads": _HEADS,
        "num_hidden_layers": _LAYERS,
        "num_key_value_heads": _KV_HEADS,
        "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": _VOCABULARY,
    }


def _tensors() -> dict[str, tuple[int, ...]]:
    kv_size = _HIDDEN // _HEADS * _KV_HEADS
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (_VOCABULARY, _HIDDEN)}
    for layer in range(_LAYERS):
        shapes: dict[str, tuple[int, ...]] = {
            "input_layernorm": (_HIDDEN,),
            "mlp.down_proj": (_HIDDEN, _INNER),
            "mlp.gate_proj": (_INNER, _HIDDEN),
            "mlp.up_proj": (_INNER, _HIDDEN),
            "post_attention_layernorm": (_HIDDEN,),
            "self_attn.k_proj": (kv_size, _HIDDEN),
            "self_attn.o_proj": (_HIDDEN, _HIDDEN),
            "self_attn.q_proj": (_HIDDEN, _HIDDEN),
            "self_attn.v_proj": (kv_size, _HIDDEN),
        }
        tensors |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in shapes.items()}
    return tensors | {"model.norm.weight": (_HIDDEN,), "lm_head.weight": (_VOCABULARY, _HIDDEN)}


def _shards() -> list[dict[str, tuple[int, ...]]]:
    """The tensors in their order, in as many files of about the same size."""
    tensors = _tensors()
    total, before = sum(map(_size_bytes, tensors.values())), 0
    shards: list[dict[str, tuple[int, ...]]] = [{} for _ in range(SHARDS)]
    for name, shape in tensors.items():
        shards[(before + _size_bytes(shape) // 2) * SHARDS // total][name] = shape
        before += _size_bytes(shape)
    return shards


def _write_shard(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        start, end = end, end + _size_bytes(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + end)


def _size_bytes(shape: tuple[int, ...]) -> int:
    return _BF16_BYTES * shape[0] * (shape[1] if len(shape) > 1 else 1)


def _tokenizer() -> dict[str, Any]:
    """Byte-level BPE with as many merges as the real one: loading it costs what loading a real one costs."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in plain] + [chr(256 + place) for place in range(256 - len(plain))]
    pairs = list(product(letters, letters))
    longer = islice(product(pairs, letters), 128000 - len(letters) - len(pairs))
    merges = [*pairs, *(("".join(pair), letter) for pair, letter in longer)]
    tokens = [*letters, *("".join(merge) for merge in merges)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": len(tokens) + place,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for place, token in enumerate(_SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {token: place for place, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
