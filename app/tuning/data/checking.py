"""What a data file holds and what tuning on it would take, before anything is trained."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from app.core.tuning_spec import MOST_ITERATIONS, advised_epochs, iterations_for
from app.tuning.data.conversations import Conversation
from app.tuning.data.lines import Watch
from app.tuning.data.problems import DataProblems, Problem
from app.tuning.data.reading import Format, read_conversations
from app.tuning.data.samples import Sample, samples_of
from app.tuning.data.tokenizer import Tokenizer

ADVISED_ROWS = 2000
_TURN_TOKENS = 5
"""That a template adds to each turn, about."""
_TOKEN_BYTES = 4
"""Of UTF-8: about four English letters, or one and a third Chinese characters, are a token."""


class DataReport(BaseModel):
    """What a data file holds. Of a file with problems: what was read before them."""

    model_config = ConfigDict(frozen=True)

    rows: int
    """Lines of JSON, or rows of a table."""
    conversations: int
    samples: int
    """What is trained on: conversations, or more where the chat template needs it; without those that are dropped."""
    tokens: int
    """Of the samples, after they are cut."""
    trained_tokens: int
    exact: bool
    """Whether tokens were counted by a tokenizer; else all about tokens is estimated from the texts."""
    longest: int
    """Tokens of the longest sample before it is cut."""
    max_length: int | None
    cut: int
    """Samples that are longer than `max_length`, and lose their ends."""
    cut_tokens: int
    dropped: int
    """Samples with nothing left to learn once they are cut."""
    iterations_per_epoch: int
    suggested_epochs: tuple[int, int]
    suggested_iterations: tuple[int, int]
    problems: tuple[Problem, ...]


def check_data(
    path: Path,
    tokenizer: Tokenizer | None = None,
    max_length: int | None = None,
    *,
    format: Format = "auto",
    scratch: Path | None = None,
    watch: Watch = lambda done: None,
) -> DataReport:
    """Read all of a file; see `read_conversations`. Raises TokenizerUnusable."""
    rows = conversations = samples = tokens = trained_tokens = longest = cut = cut_tokens = dropped = 0

    def counted(of: Iterable[Conversation]) -> Iterator[Conversation]:
        nonlocal rows, conversations
        for conversation in of:
            rows += len({turn.line for turn in conversation})
            conversations += 1
            yield conversation

    problems: tuple[Problem, ...] = ()
    try:
        read = counted(read_conversations(path, format, scratch=scratch, watch=watch))
        made = _estimated(read, max_length) if tokenizer is None else _counted(read, tokenizer, max_length)
        for length, kept, trained in made:
            longest = max(longest, length)
            cut += kept < length
            cut_tokens += length - kept
            if trained:
                samples, tokens, trained_tokens = samples + 1, tokens + kept, trained_tokens + trained
            else:
                dropped += 1
    except DataProblems as found:
        problems = found.problems
    epochs = advised_epochs(samples)
    low, high = (min(MOST_ITERATIONS, iterations_for(samples, times)) for times in epochs)
    return DataReport(
        rows=rows, conversations=conversations, samples=samples, tokens=tokens, trained_tokens=trained_tokens,
        exact=tokenizer is not None, longest=longest, max_length=max_length, cut=cut, cut_tokens=cut_tokens,
        dropped=dropped, iterations_per_epoch=iterations_for(samples, 1), suggested_epochs=epochs,
        suggested_iterations=(low, high),
        problems=problems,
    )  # fmt: skip


_Size = tuple[int, int, int]
"""(Tokens before the cut, tokens, tokens that are learnt) of a sample."""


def _counted(conversations: Iterable[Conversation], tokenizer: Tokenizer, max_length: int | None) -> Iterator[_Size]:
    def size(sample: Sample) -> _Size:
        return sample.length, len(sample.input_ids), sum(sample.trained)

    return map(size, samples_of(conversations, tokenizer, max_length))


def _estimated(conversations: Iterable[Conversation], max_length: int | None) -> Iterator[_Size]:
    for conversation in conversations:
        length = trained = 0
        for turn in conversation:
            turn_tokens = len(turn.content.encode()) // _TOKEN_BYTES + _TURN_TOKENS
            if turn.role == "assistant":
                room = turn_tokens if max_length is None else max_length - length
                trained += max(0, min(turn_tokens, room))
            length += turn_tokens
        yield length, length if max_length is None else min(length, max_length), trained
