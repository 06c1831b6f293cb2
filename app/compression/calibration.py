"""Conversations as the tokens that a model is calibrated with: written by its own chat template, end to end."""

from collections.abc import Iterable

from app.tuning.data.conversations import Conversation
from app.tuning.data.problems import ProblemList, Wrong
from app.tuning.data.rendering import ChatTemplate
from app.tuning.data.tokenizer import Tokenizer


def calibration_samples(
    conversations: Iterable[Conversation], tokenizer: Tokenizer, samples: int, length: int
) -> list[list[int]]:
    """At most `samples` samples, each of just `length` tokens; no more conversations are read than that takes.

    A sample ends wherever it is full, and the next one goes on there. Raises DataProblems where there is not enough
    for one or the template refuses a conversation, TokenizerUnusable.
    """
    template = ChatTemplate(tokenizer)
    gathered: list[list[int]] = []
    left: list[int] = []
    for conversation in conversations:
        try:
            *_, whole = template.render(conversation)
        except Wrong as wrong:
            raise ProblemList().stop(conversation[0].line, wrong) from None
        left += tokenizer(whole.text, add_special_tokens=False)["input_ids"]
        while len(left) >= length and len(gathered) < samples:
            gathered.append(left[:length])
            left = left[length:]
        if len(gathered) == samples:
            break
    if not gathered:
        cause = f"all conversations together have {len(left)} tokens, and one sample takes {length}"
        raise ProblemList().stop(0, Wrong("", cause, "give more conversations, or lower calibration_length"))
    return gathered
