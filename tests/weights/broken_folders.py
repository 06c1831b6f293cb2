"""Weight folders, each broken in one way, and what must be said of it."""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.catalog.entries import Patch
from tests.weights.damages import (
    INDEX,
    SHARDS,
    WEIGHTS,
    adapter,
    config,
    duplicate_key,
    generation,
    header,
    index,
    move_to,
    pickled_shards,
    quantized,
    remove,
    rename,
    resize,
    second_copy,
    shift,
    tensors,
    write,
)
from tests.weights.quantized_folders import AWQ, INT8, PACKED, W4A8
from tests.weights.safetensors_files import write_safetensors
from tests.weights.sound_folders import edit_json

UP = "model.layers.1.mlp.up_proj.weight"
EXPERT = "model.layers.1.block_sparse_moe.experts.1.w1.weight"
Q_PROJ = "model.layers.0.self_attn.q_proj"


@dataclass(frozen=True)
class Broken:
    """How a sound folder is broken, and the findings that this makes."""

    name: str
    damage: Callable[[Path], object]
    codes: set[str]
    """Of errors, all of them."""
    warnings: set[str] = field(default_factory=set)
    file: str | None = None
    """Some finding of these codes names it."""
    tensor: str | None = None
    base: str = "llama"
    """The folder that is broken: a family, or "sharded"."""
    precision: str = "BF16"
    entry: dict[str, Any] = field(default_factory=dict)


PADDING = Patch(file="tokenization_tiny.py", must_not_contain=("assert self.left",), advice="Remove the assertion.")

CONFIGS = [
    Broken("no config", remove("config.json"), {"config_unreadable"}, file="config.json"),
    Broken("config not JSON", write("config.json", "{'a': 1}"), {"config_unreadable"}, file="config.json"),
    Broken("config a list", write("config.json", "[]"), {"config_unreadable"}, file="config.json"),
    Broken("config not UTF-8", write("config.json", b"\xff\xfe{}"), {"config_unreadable"}, file="config.json"),
    Broken("config nested deep", write("config.json", '{"a":' * 40_000), {"config_unreadable"}, file="config.json"),
    Broken("config of lists", write("config.json", '{"a": [' + "[]," * 90_000), {"config_unreadable"}),
    Broken("config too large", write("config.json", " " * (2 << 20) + "{}"), {"config_unreadable"}),
    Broken("two configs", write("sub/config.json", "{}"), {"config_unreadable"}, file="config.json"),
    Broken("config in a subfolder", move_to("sub", "config.json"), {"config_unreadable"}),
    Broken("no architectures", config(architectures=None), {"structure_mismatch"}, file="config.json"),
    Broken("another architecture", config(architectures=["Qwen2ForCausalLM"]), {"structure_mismatch"}),
    Broken("architectures a text", config(architectures="LlamaForCausalLM"), {"structure_mismatch"}),
    Broken("another model_type", config(model_type="qwen2"), {"structure_mismatch"}, file="config.json"),
    Broken("unknown model_type", config(model_type="chatglm"), {"template_selection_error"}, file="config.json"),
    Broken("no model_type", config(model_type=None), {"structure_mismatch"}, file="config.json"),
    Broken("no hidden_size", config(hidden_size=None), {"structure_mismatch", "weights_unloadable"}),
    Broken("a layer too many", config(num_hidden_layers=3), {"structure_mismatch", "weights_unloadable"}),
    Broken("a layer too few", config(num_hidden_layers=1), {"structure_mismatch", "weights_unloadable"}),
    Broken("another inner size", config(intermediate_size=96), {"structure_mismatch", "weights_unloadable"}),
    Broken("another vocabulary", config(vocab_size=300), {"weights_unloadable"}, tensor="lm_head.weight"),
    Broken("vocab_size a text", config(vocab_size="many"), {"structure_mismatch"}, file="config.json"),
    Broken("heads that do not fit", config(num_attention_heads=3), {"structure_mismatch"}, file="config.json"),
    Broken("no layer", config(num_hidden_layers=0), {"structure_mismatch"}, file="config.json"),
    Broken("a thousand million layers", config(num_hidden_layers=10**9), {"structure_mismatch"}),
    Broken("a hidden size beyond bounds", config(hidden_size=2**40), {"structure_mismatch"}),
    Broken("layer_types beyond bounds", config(layer_types=["a"] * 70_000), {"structure_mismatch"}),
    Broken("auto_map", config(auto_map={"AutoModel": "m.M"}), {"code_refused"}, file="config.json"),
    Broken("code", write("modeling.py", "print()"), {"code_refused"}, file="modeling.py"),
    Broken("code in a subfolder", write("sub/modeling.py", ""), {"code_refused"}, file="sub/modeling.py"),
    Broken(
        "auto_map of the tokenizer",
        lambda folder: edit_json(folder / "tokenizer_config.json", lambda value: value.update(auto_map={"A": "b.B"})),
        {"code_refused"},
        file="tokenizer_config.json",
    ),
    Broken("generation config not JSON", write("generation_config.json", "{"), {"generation_config_unreadable"}),
    Broken("generation config a number", write("generation_config.json", "1"), {"generation_config_unreadable"}),
    Broken("temperature but no do_sample", generation(temperature=0.6), {"do_sample_inconsistent"}),
    Broken("top_k, do_sample off", generation(top_k=20, do_sample=False), {"do_sample_inconsistent"}),
    Broken(
        "a field the entry alone has",
        write("x.txt", ""),
        {"standard_config_unreadable"},
        entry={"structure": {"hiden_size": 64}},
    ),
    Broken(
        "an entry of a class nobody has",
        config(architectures=["TinyForNobody"]),
        {"template_selection_error"},
        entry={"architectures": ("TinyForNobody",)},
    ),
    Broken("a link", lambda folder: (folder / "l.json").symlink_to("config.json"), {"path_refused"}, file="l.json"),
    Broken("a pipe", lambda folder: os.mkfifo(folder / "p.json"), {"path_refused"}, file="p.json"),
    Broken("an adapter only", adapter, {"adapter_only"}, file="adapter_config.json"),
    Broken(
        "no tokenizer",
        remove("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
        {"tokenizer_unloadable"},
        {"chat_template_missing"},
    ),
    Broken("a huge tokenizer", write("vocab.txt", bytes(65 << 20)), {"tokenizer_unloadable"}, file="vocab.txt"),
    Broken(
        "not patched",
        write("tokenization_tiny.py", "assert self.left\n"),
        {"needs_patch"},
        file="tokenization_tiny.py",
        entry={"patch": PADDING},
    ),
]

HEADERS = [
    Broken("a pointer", write(WEIGHTS, "version https://git-lfs.github.com/spec/v1"), {"weights_unloadable"}),
    Broken("an empty file", write(WEIGHTS, ""), {"weights_unloadable"}, file=WEIGHTS),
    Broken("cut off", resize(-1), {"weights_unloadable"}, file=WEIGHTS),
    Broken("cut off in its header", write(WEIGHTS, struct.pack("<Q", 999) + b"{"), {"weights_unloadable"}),
    Broken("too long", resize(1), {"weights_unloadable"}, file=WEIGHTS),
    Broken("header not JSON", write(WEIGHTS, struct.pack("<Q", 2) + b"{{"), {"weights_unloadable"}, file=WEIGHTS),
    Broken("header too large", write(WEIGHTS, struct.pack("<Q", 1 << 40) + b"{}"), {"weights_unloadable"}),
    Broken("overlapping tensors", header(shift(UP, -2, -2)), {"weights_unloadable"}, file=WEIGHTS),
    Broken("a shape of other size", header(lambda h: h[UP].update(shape=[1])), {"weights_unloadable"}, tensor=UP),
    Broken("unknown dtype", header(lambda h: h[UP].update(dtype="Q8")), {"weights_unloadable"}, tensor=UP),
    Broken("negative shape", header(lambda h: h[UP].update(shape=[-64, -128])), {"weights_unloadable"}, tensor=UP),
    Broken("offsets backwards", header(shift(UP, 10**9, 0)), {"weights_unloadable"}, tensor=UP),
    Broken("offsets not numbers", header(lambda h: h[UP].update(data_offsets="0")), {"weights_unloadable"}, tensor=UP),
    Broken("metadata not texts", header(lambda h: h.update(__metadata__={"a": 1})), {"weights_unloadable"}),
    Broken("bytes without a tensor", header(lambda h: h.pop(UP)), {"weights_unloadable"}, tensor=UP),
]
"""Which safetensors itself refuses to open."""

WEIGHT_FILES = [
    Broken("no weights", remove(WEIGHTS), {"weights_unloadable"}),
    Broken("weights in a subfolder", move_to("sub", WEIGHTS), {"weights_unloadable"}),
    Broken("a tensor twice in a header", duplicate_key, {"weights_unloadable"}, file=WEIGHTS),
    Broken("no tensor", lambda folder: write_safetensors(folder / WEIGHTS, b"{}"), {"weights_unloadable"}),
    Broken("a missing tensor", tensors(lambda t: t.pop(UP)), {"weights_unloadable"}, tensor=UP),
    Broken("no embedding", tensors(lambda t: t.pop("model.embed_tokens.weight")), {"weights_unloadable"}),
    Broken(
        "neither of two tied tensors",
        tensors(lambda t: t.pop("model.embed_tokens.weight")),
        {"weights_unloadable"},
        tensor="model.embed_tokens.weight",
        base="llama-tied",
    ),
    Broken("a renamed tensor", tensors(rename(UP, "model.up.weight")), {"weights_unloadable"}, tensor=UP),
    Broken("an extra tensor", tensors(lambda t: t.update(x=("F32", [1]))), {"weights_unloadable"}, tensor="x"),
    Broken("another shape", tensors(lambda t: t.update({UP: ("BF16", [64, 128])})), {"weights_unloadable"}, tensor=UP),
    Broken("whole numbers", tensors(lambda t: t.update({UP: ("I64", [128, 64])})), {"weights_unloadable"}, tensor=UP),
    Broken("a missing expert", tensors(lambda t: t.pop(EXPERT)), {"weights_unloadable"}, tensor=EXPERT, base="mixtral"),
    Broken(
        "experts counted wrongly",
        tensors(rename(EXPERT, EXPERT.replace("experts.1", "experts.9"))),
        {"weights_unloadable"},
        tensor=EXPERT,
        base="mixtral",
    ),
    Broken(
        "an expert of another shape",
        tensors(lambda t: t.update({EXPERT: ("BF16", [64, 128])})),
        {"weights_unloadable"},
        tensor=EXPERT,
        base="mixtral",
    ),
    Broken("a missing pickled file", pickled_shards, {"index_mismatch"}, file="pytorch_model-2.bin"),
]

SHARDED = [
    Broken("a missing shard", remove(SHARDS[1]), {"index_mismatch"}, file=SHARDS[1]),
    Broken("a tensor in another shard", index(lambda m: m.update({UP: SHARDS[0]})), {"index_mismatch"}, tensor=UP),
    Broken("a tensor in no shard", index(lambda m: m.update(x=SHARDS[0])), {"index_mismatch"}, tensor="x"),
    Broken("index not JSON", write(INDEX, "{"), {"index_mismatch"}, file=INDEX),
    Broken("index without weight_map", write(INDEX, "{}"), {"index_mismatch"}, file=INDEX),
    Broken("index out of the folder", index(lambda m: m.update(x="../w.safetensors")), {"index_mismatch"}, file=INDEX),
    Broken("a damaged shard", write(SHARDS[0], "x" * 99), {"weights_unloadable"}, file=SHARDS[0]),
    Broken(
        "a tensor in two shards",
        tensors(lambda t: t.update({"model.norm.weight": ("BF16", [64])}), SHARDS[0]),
        {"weights_unloadable", "index_mismatch"},
        tensor="model.norm.weight",
    ),
    Broken("weights beside the index", second_copy, {"index_mismatch"}, file="model.safetensors"),
    Broken("no index", remove(INDEX), set(), {"index_missing"}, file=INDEX),
    Broken("a shard not in the index", write("more.safetensors", "x"), set(), {"index_mismatch"}),
    Broken("a tensor not in the index", index(lambda m: m.pop(UP)), set(), {"index_mismatch"}, tensor=UP),
]

PRECISIONS = [
    Broken("quantized, declared BF16", quantized("packed"), {"quantization_config_extra"}, file="config.json"),
    Broken("declared AWQ, is not", config(), {"quantization_config_missing"}, precision="AWQ-W4A16"),
    Broken("int8, declared FP8", quantized("int8"), {"precision_mismatch"}, precision="W8A8_FP8"),
    Broken("FP8, declared W4A8", quantized("fp8"), {"precision_mismatch"}, precision="W4A8"),
    Broken(
        "int8 weights without a word of it",
        quantized("int8", config(quantization_config=None)),
        {"precision_mismatch"},
        tensor="model.layers.0.mlp.down_proj.weight",
    ),
    Broken(
        "AWQ without a word of it",
        quantized("awq", config(quantization_config=None)),
        {"quantization_config_missing"},
        precision="AWQ-W4A16",
    ),
    Broken(
        "plain weights called quantized", config(quantization_config=W4A8), {"precision_mismatch"}, precision="W4A8"
    ),
    Broken(
        "a quantization nobody knows",
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        {"precision_mismatch"},
        precision="AWQ-W4A16",
    ),
    Broken(
        "a quantization_config that is a text",
        config(quantization_config="awq"),
        {"precision_mismatch"},
        precision="AWQ-W4A16",
    ),
    Broken(
        "AWQ of another layout",
        quantized("awq", config(quantization_config={**AWQ, "version": "gemv"})),
        {"precision_mismatch"},
        precision="AWQ-W4A16",
    ),
    Broken("comes from compression only", quantized("int8"), {"precision_unsupported"}, precision="SmoothQuant-W8A8"),
    Broken(
        "no scale",
        quantized("float8", tensors(lambda t: t.pop(f"{Q_PROJ}.weight_scale"))),
        {"weights_unloadable"},
        tensor=f"{Q_PROJ}.weight_scale",
        precision="W8A8_FP8",
    ),
    Broken(
        "a scale of another shape",
        quantized("packed", tensors(lambda t: t.update({f"{Q_PROJ}.weight_scale": ("BF16", [64, 1])}))),
        {"weights_unloadable"},
        tensor=f"{Q_PROJ}.weight_scale",
        precision="AWQ-W4A16",
    ),
    Broken(
        "packed weights of another shape",
        quantized("packed", tensors(lambda t: t.update({f"{Q_PROJ}.weight_packed": ("I32", [64, 16])}))),
        {"weights_unloadable"},
        tensor=f"{Q_PROJ}.weight_packed",
        precision="AWQ-W4A16",
    ),
    Broken(
        "groups of another size",
        quantized("awq", config(quantization_config={**AWQ, "group_size": 64})),
        {"weights_unloadable"},
        tensor=f"{Q_PROJ}.scales",
        precision="AWQ-W4A16",
    ),
    Broken(
        "no zeros",
        quantized("awq", tensors(lambda t: t.pop(f"{Q_PROJ}.qzeros"))),
        {"weights_unloadable"},
        tensor=f"{Q_PROJ}.qzeros",
        precision="AWQ-W4A16",
    ),
    Broken(
        "a missing quantized weight",
        quantized("fp8", tensors(lambda t: t.pop(f"{Q_PROJ}.weight"))),
        {"weights_unloadable"},
        tensor=f"{Q_PROJ}.weight",
        precision="W8A8_FP8",
    ),
    Broken(
        "a layer left plain",
        quantized(
            "packed",
            tensors(rename(f"{Q_PROJ}.weight_packed", f"{Q_PROJ}.weight")),
            tensors(lambda t: t.update({f"{Q_PROJ}.weight": ("BF16", [64, 64])})),
        ),
        {"weights_unloadable"},
        tensor=f"{Q_PROJ}.weight",
        precision="AWQ-W4A16",
    ),
    Broken(
        "two schemes in one",
        quantized(
            "int8",
            config(
                quantization_config={
                    **INT8,
                    "config_groups": {"a": INT8["config_groups"]["group_0"], "b": PACKED["config_groups"]["group_0"]},
                }
            ),
        ),
        {"precision_mismatch"},
        precision="W4A8",
    ),
]

ALL = [
    *CONFIGS,
    *HEADERS,
    *WEIGHT_FILES,
    *(replace(broken, base="sharded") for broken in SHARDED),
    *PRECISIONS,
]
