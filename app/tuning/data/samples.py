"""Conversations as tokens, and which of them are learnt."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from app.tuning.data.conversations import Conversation
from app.tuning.data.problems import ProblemList, Wrong
from app.tuning.data.rendering import ChatTemplate, Rendered
from app.tuning.data.tokenizer import Tokenizer

BATCH = 256
BATCH_CHARACTERS = 1 << 20
"""The tokenizer is given at most so many texts, and about so much text, at once; it works on all cores."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What is trained on at once: a conversation, or its beginning."""

    input_ids: list[int]
    trained: list[bool]
    """Which of the tokens are learnt: those that the assistant writes, with the one that ends its turn."""
    length: int
    """Tokens before it was cut to the maximum length."""

    @property
    def useful(self) -> bool:
        """Whether there is anything left to learn."""
        return any(self.trained)


def samples_of(
    conversations: Iterable[Conversation], tokenizer: Tokenizer, max_length: int | None = None
) -> Iterator[Sample]:
    """The samples of each conversation in order: mostly one, see ChatTemplate.render; cut at the end to `max_length`.

    Those that are not `useful` come too, to be counted. Raises TokenizerUnusable, and DataProblems for conversations
    that the chat template refuses.
    """
    template = ChatTemplate(tokenizer)
    marker = _Marker(tokenizer)
    for texts in _batches(_rendered(conversations, template)):
        # Not the library's own truncation: how long a sample was is told.
        tokens = tokenizer(
            [rendered.text for rendered in texts],
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        for rendered, encoding, ids in zip(texts, tokens.encodings, tokens["input_ids"], strict=True):
            trained = marker.mark(rendered, encoding, ids)
            yield Sample(ids[:max_length], trained[:max_length], len(ids))


def _rendered(conversations: Iterable[Conversation], template: ChatTemplate) -> Iterator[Rendered]:
    problems = ProblemList()
    for conversation in conversations:
        try:
            for rendered in template.render(conversation):
                if not problems:
                    yield rendered
        except Wrong as wrong:
            problems.add(conversation[0].line, wrong)
    problems.raise_any()


def _batches(texts: Iterable[Rendered]) -> Iterator[list[Rendered]]:
    batch: list[Rendered] = []
    characters = 0
    for rendered in texts:
        batch.append(rendered)
        characters += len(rendered.text)
        if len(batch) == BATCH or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class _Marker:
    """Finds the tokens that the assistant writes."""

    def __init__(self, tokenizer: Tokenizer):
        added = tokenizer.added_tokens_decoder
        self._special = {*tokenizer.all_special_ids, *(number for number, token in added.items() if token.special)}
        self._end_of_turn = tokenizer.eos_token_id

    def mark(self, rendered: Rendered, encoding: Any, ids: list[int]) -> list[bool]:
        """For each token whether it is learnt. `encoding`: of the tokenizers library, for `ids`."""
        trained = [False] * len(ids)
        for start, end in rendered.spans:
            first = _token_at(encoding, start, len(rendered.text), len(ids))
            after = self._after(rendered.text, start, end, encoding, ids)
            trained[first:after] = [True] * max(0, after - first)
        return trained

    def _after(self, text: str, start: int, end: int, encoding: Any, ids: list[int]) -> int:
        """The token that follows the assistant's turn: nothing is written behind the token that ends it."""
        content_end = start + len(text[start:end].rstrip())
        after = _token_at(encoding, content_end, len(text), len(ids))
        if after and ids[after - 1] in self._special:
            return after
        after = _token_at(encoding, end, len(text), len(ids))
        # Marks of a template may leave out the token that ends the turn.
        return after + 1 if after < len(ids) and ids[after] == self._end_of_turn else after


def _token_at(encoding: Any, character: int, characters: int, tokens: int) -> int:
    """The first token that begins at this character or behind it."""
    while character < characters:
        token: int | None = encoding.char_to_token(character)
        if token is not None:
            begins = encoding.token_to_chars(token)[0]
            return token if begins >= character else token + 1
        character += 1  # a normalizer has left it out
    return tokens
