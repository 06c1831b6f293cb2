"""A tokenizer as large as Gemma's: 262,144 tokens in several scripts, half a million merges, 30 MB."""

import json
from itertools import islice, product
from pathlib import Path
from typing import Any

TOKENS = 262_144
LETTERS = [*map(chr, range(ord("a"), ord("z") + 1)), *map(chr, range(ord("а"), ord("п")))]
HAN = [chr(0x4E00 + place) for place in range(600)]
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "😀"]  # with which Python's texts take four bytes a character
TEMPLATE = "{% for message in messages %}<bos>{{ message.role }}: {{ message.content }}<eos>{% endfor %}"


def large_tokenizer() -> dict[str, Any]:
    """tokenizer.json; every way to make a token of two others is a merge, as in the real one."""
    words = [
        *map("".join, product(LETTERS, repeat=2)),
        *map("".join, product(LETTERS, repeat=3)),
        *map("".join, product(LETTERS[:20], repeat=4)),
    ]
    known = [*SPECIAL, *LETTERS, *HAN, *words]
    pairs = list(islice(map("".join, product(HAN, repeat=2)), TOKENS - len(known)))
    merges = [[word[:place], word[place:]] for word in [*words, *pairs] for place in range(1, len(word))]
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "pre_tokenizer": None, "decoder": None,
        "added_tokens": [
            {"id": place, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for place, token in enumerate(SPECIAL)
        ],
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: place for place, token in enumerate([*known, *pairs])}, "merges": merges,
        },
    }  # fmt: skip


def write_large_tokenizer(folder: Path) -> None:
    """tokenizer.json, indented as libraries write it, and tokenizer_config.json with a template."""
    text = json.dumps(large_tokenizer(), ensure_ascii=False, indent=2)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    config = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
