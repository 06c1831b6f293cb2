"""What was made of a request that was broken off, and what is kept to know it."""

import gc
import weakref
from dataclasses import dataclass, field

from app.core.usage import Tokens
from app.unit.made_texts import MadeTexts


@dataclass
class Made:
    count: int

    def num_output_tokens(self) -> int:
        return self.count


@dataclass(eq=False)
class Text:
    """As vLLM's RequestState."""

    prompt_len: int
    detokenizer: Made = field(default_factory=lambda: Made(0))
    is_prefilling: bool = False
    num_cached_tokens: int = 0
    ended: bool = False


def goes_on(text: Text) -> bool:
    return not text.ended


def test_without_any_text_nothing_was_made() -> None:
    assert not MadeTexts()
    assert MadeTexts().tokens == Tokens()


def test_a_text_whose_prompt_was_not_read_takes_nothing() -> None:
    texts = MadeTexts()
    texts.add(Text(9, is_prefilling=True), goes_on)
    assert texts
    assert texts.tokens == Tokens()


def test_choices_share_the_prompt() -> None:
    texts = MadeTexts()
    texts.add(Text(9, Made(3), num_cached_tokens=4), goes_on)
    texts.add(Text(9, Made(2), num_cached_tokens=8), goes_on)
    assert texts.tokens == Tokens(prompt_tokens=9, cached_tokens=4, completion_tokens=5)


def test_a_text_counts_as_it_grows() -> None:
    texts, text = MadeTexts(), Text(9, Made(1))
    texts.add(text, goes_on)
    text.detokenizer.count = 7
    assert texts.tokens.completion_tokens == 7


def test_of_beams_only_the_last_step_is_kept_and_what_they_made_is_no_prompt() -> None:
    texts = MadeTexts()
    seen: list[weakref.ref[Text]] = []
    beams: list[Text] = []
    for step in range(50):
        for beam in beams:
            beam.ended = True
        beams = [Text(9 + step, Made(1)) for _ in range(3 if step else 1)]
        for beam in beams:
            texts.add(beam, goes_on)
            seen.append(weakref.ref(beam))
    beams[-1].is_prefilling = True  # and there the caller leaves
    del beam
    gc.collect()
    assert sum(one() is not None for one in seen) == 3
    assert texts.tokens == Tokens(prompt_tokens=9, completion_tokens=1 + 49 * 3 - 1)
