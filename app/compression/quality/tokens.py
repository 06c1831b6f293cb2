"""Held-out texts as a model reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from app.compression.quality.held_out import Task
from app.core.compression_memory import WINDOW_TOKENS

Ids = list[int]


class Reader:
    """A model's tokenizer, without any code of its folder."""

    def __init__(self, folder: Path, longest: int | None) -> None:
        """`longest`: the most tokens that the model takes; None: not known."""
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.window = min(WINDOW_TOKENS, longest or WINDOW_TOKENS)
        self._prefix: Ids = self._tokenizer("")["input_ids"][:1]
        """What the model expects before every text, such as <s>."""

    @property
    def ends(self) -> set[int]:
        """The token after which an answer is over."""
        end = self._tokenizer.eos_token_id
        return set() if end is None else {end}

    def windows(self, texts: Sequence[str]) -> list[Ids]:
        """Each text in pieces that the model can read; of each piece every token but the first is predicted."""
        room = self.window - len(self._prefix)
        pieces = []
        for text in texts:
            ids = self._plain(text)
            pieces += [self._prefix + ids[start : start + room] for start in range(0, len(ids), room)]
        return [piece for piece in pieces if len(piece) > 1]

    def chats(self, questions: Sequence[str], answer: int) -> list[Ids]:
        """Each question up to where the answer begins, in the model's chat template where it has one.

        Those that leave no room for `answer` tokens are left out.
        """
        return [ids for question in questions if len(ids := self._chat(question)) + answer <= self.window]

    def options(self, task: Task) -> list[tuple[Ids, list[Ids]]]:
        """Of each item the text and the ways to go on; those that are too long are left out."""
        items = []
        for item in task.items:
            begun = self._prefix + self._plain(item.text)
            ways = [self._plain(option) for option in item.options]
            if len(begun) + max(map(len, ways)) <= self.window and begun and all(ways):
                items.append((begun, ways))
        return items

    def _chat(self, question: str) -> Ids:
        if not self._tokenizer.chat_template:
            return self._prefix + self._plain(question)
        messages = [{"role": "user", "content": question}]
        text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return self._plain(text)

    def _plain(self, text: str) -> Ids:
        ids: Ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
