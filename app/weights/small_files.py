"""The small files of a weight folder, read whole: configs, index, tokenizer."""

import json
from pathlib import Path
from typing import Any

from app.store.folders import Folder, FolderFile, SourceChanged
from app.weights.finding_list import FindingList

CONFIG_BYTES = 1 << 20
"""Of config.json and generation_config.json; the largest known have tens of kilobytes."""
TOKENIZER_CONFIG_BYTES = 4 << 20
TOKENIZER_FILE_BYTES = 64 << 20
"""Twice the largest known, Gemma's."""

_CHUNK_BYTES = 8 << 20
_LISTS = 50_000
_FIELDS = 200_000
_TOKENIZER_FILES = {
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",  # says which tokenizer class it is
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
}
_SMALLER = {
    "config.json": CONFIG_BYTES,
    "tokenizer_config.json": TOKENIZER_CONFIG_BYTES,
    "chat_template.jinja": TOKENIZER_CONFIG_BYTES,
    "chat_template.json": TOKENIZER_CONFIG_BYTES,
}


def read_object(
    folder: Folder, file: FolderFile, limit_bytes: int, *, lists: int = _LISTS, fields: int = _FIELDS
) -> dict[str, Any]:
    """The JSON object in this file. Raises ValueError that says what it is instead, SourceChanged, StoreError."""
    if file.size_bytes > limit_bytes:
        raise ValueError(f"{file.size_bytes} bytes, where at most {limit_bytes} are read")
    return parse_object(_read_whole(folder, file), lists=lists, fields=fields)


def parse_object(text: bytes, *, lists: int = _LISTS, fields: int = _FIELDS) -> dict[str, Any]:
    """The JSON object of this text, NaN and infinities let through. Raises ValueError that says what it is instead.

    Lists, objects and fields are bounded: the smallest take twenty times as much memory as text.
    """
    if text.count(b"[") + text.count(b"{") > lists or text.count(b":") > fields:
        raise ValueError("more lists or fields than such a file ever has")
    try:
        value = json.loads(text.decode())
    except (ValueError, RecursionError):
        raise ValueError("not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def copy_tokenizer(folder: Folder, files: dict[str, FolderFile], target: Path, findings: FindingList) -> None:
    """Put what a tokenizer can be loaded from into `target`. Files too large are found fault with instead."""
    for name, file in files.items():
        if name not in _TOKENIZER_FILES:
            continue
        limit = _SMALLER.get(name, TOKENIZER_FILE_BYTES)
        if file.size_bytes > limit:
            if name == "config.json":  # found fault with where it is read
                continue
            findings.add(
                "tokenizer_unloadable",
                "Use the base model's own tokenizer files.",
                file=name,
                found=f"{file.size_bytes} bytes",
                expected=f"at most {limit} bytes",
            )
            continue
        with (target / name).open("xb") as copy:
            for start in range(0, file.size_bytes, _CHUNK_BYTES):
                copy.write(_read_exactly(folder, file, start, min(_CHUNK_BYTES, file.size_bytes - start)))


def _read_whole(folder: Folder, file: FolderFile) -> bytes:
    return _read_exactly(folder, file, 0, file.size_bytes) if file.size_bytes else b""


def _read_exactly(folder: Folder, file: FolderFile, start: int, length: int) -> bytes:
    data = folder.read(file, start, length)
    if len(data) != length:
        raise SourceChanged(file.name)
    return data
