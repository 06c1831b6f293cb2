"""The tokenizer of a model's folder, which turns conversations into what the model reads."""

from pathlib import Path
from typing import Any

Tokenizer = Any
"""A transformers tokenizer of the fast kind."""


class TokenizerUnusable(Exception):
    """The model's tokenizer cannot prepare conversations; the text says why, and what to do."""


def load_tokenizer(folder: Path) -> Tokenizer:
    """From local files only, without running code of theirs; takes seconds. Raises TokenizerUnusable."""
    from transformers import AutoTokenizer  # noqa: PLC0415 (seconds)

    if not folder.is_dir():  # a name of something in a hub's cache is not meant
        raise TokenizerUnusable("the tokenizer's folder is missing; name the folder that holds tokenizer.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # it may be anything; what it says may hold paths
        raise TokenizerUnusable(
            f"transformers cannot load the tokenizer ({type(error).__name__}); the folder needs tokenizer.json and "
            "tokenizer_config.json, and no code of its own"
        ) from error
    return checked_tokenizer(tokenizer)


def checked_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """The same, if it can prepare conversations. Raises TokenizerUnusable."""
    if not getattr(tokenizer, "is_fast", False):
        raise TokenizerUnusable(
            "the tokenizer cannot say which characters a token stands for; convert it to tokenizer.json"
        )
    if not tokenizer.chat_template:
        raise TokenizerUnusable(
            "the model has no chat template, so nothing says how a conversation is written for it; add "
            "chat_template.jinja to its folder, or tune the model's instruct variant"
        )
    return tokenizer
