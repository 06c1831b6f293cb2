"""A tokenizer.json without its merges, so that a large one loads in a fraction of the memory. All in the sandbox.

Merges say how letters become tokens. To load, to have a vocabulary and to render a template a tokenizer needs none,
and the library's reader takes hundreds of megabytes for half a million of them. So they are checked here, as it would
check them, and left out of what it reads.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from app.weights import sandbox

FILE = "tokenizer.json"
LARGE_BYTES = 8 << 20
"""Smaller ones are no trouble as they are."""


def thin_out(folder_dir: Path, *, memory_bytes: int, time_s: float) -> str | None:
    """Replace the folder's tokenizer.json, if it is large and has merges; or what is wrong with it.

    One that makes no sense is left for the library to say so. Raises SandboxFailed.
    """
    path = folder_dir / FILE
    if not path.is_file() or path.stat().st_size < LARGE_BYTES:
        return None
    partial = folder_dir / ".thin"
    partial.mkdir()
    try:
        problem: str | None = sandbox.run(
            _rewrite, path, partial / FILE, memory_bytes=memory_bytes, time_s=time_s, writable=partial
        )
        written = partial / FILE
        if problem is None and written.is_file() and not written.is_symlink():
            written.replace(path)
        return problem
    finally:
        shutil.rmtree(partial, ignore_errors=True)


# ---- in the sandbox


def _rewrite(path: Path, target: Path) -> str | None:
    """What is wrong with the merges, or None and, if there were any, the rest in `target`."""
    try:
        # From bytes: Python's own parser makes a text of it first, at four bytes a character if one is an emoji.
        tokenizer = from_json(path.read_bytes())
        model = tokenizer["model"]
        vocabulary, merges = model["vocab"], model["merges"]
        prefix = len(model.get("continuing_subword_prefix") or "")
        if not isinstance(vocabulary, dict) or not isinstance(merges, list):
            return None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    problem = next((told for merge in merges if (told := _problem(merge, vocabulary, prefix))), None)
    if problem is None:
        model["merges"] = []
        target.write_text(json.dumps(tokenizer), encoding="utf-8")
    return problem


def _problem(merge: Any, vocabulary: dict[str, Any], prefix: int) -> str | None:
    """What is wrong with a merge: two tokens, in a list or with a space between them, that make a third."""
    if isinstance(merge, str) and merge.startswith("#version"):
        return None
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        return f"the merge {str(merge)[:50]!r} is not two tokens"
    first, second = parts
    for token in (first, second, first + second[prefix:]):
        if token not in vocabulary:
            return f"a merge has or makes {token[:50]!r}, which is not in the vocabulary"
    return None
