"""What the files of a model's folder say of it."""

import json
from pathlib import Path

_USUAL_VOCABULARY = 1 << 18


def longest_of(folder: Path) -> int | None:
    """The most tokens that the model takes; None where its config.json does not say."""
    longest = _text_config(folder).get("max_position_embeddings")
    return longest if isinstance(longest, int) else None


def vocabulary_of(folder: Path) -> int:
    """How many tokens it knows; more than most where its config.json does not say."""
    size = _text_config(folder).get("vocab_size")
    return size if isinstance(size, int) else _USUAL_VOCABULARY


def weights_bytes(folder: Path) -> int:
    """Of its safetensors. Raises FileNotFoundError where there are none."""
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if not total:
        raise FileNotFoundError("the folder holds no safetensors")
    return total


def _text_config(folder: Path) -> dict[str, object]:
    config = json.loads((folder / "config.json").read_bytes())
    found = config.get("text_config")
    return found if isinstance(found, dict) and found else dict(config)
