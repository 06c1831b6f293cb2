"""What has been made for one request, from what vLLM keeps of each of its texts."""

from collections.abc import Callable
from typing import Any

from app.core.usage import Tokens


class MadeTexts:
    """The texts of one request, in the order in which they were begun; falsy while there is none.

    Only those under way are kept. Beam search makes a text of one token for each beam and step, whose prompt is all
    that came before: thousands, each as long as the whole conversation.
    """

    def __init__(self) -> None:
        self._under_way: list[Any] = []
        self._begun = False
        self._over = Tokens()

    def __bool__(self) -> bool:
        return self._begun

    def add(self, text: Any, goes_on: Callable[[Any], bool]) -> None:
        """vLLM begins `text`, a RequestState; `goes_on` tells of earlier ones whether it still makes them."""
        self._begun = True
        under_way = []
        for one in self._under_way:
            if goes_on(one):
                under_way.append(one)
            else:
                self._over = _with(self._over, one)
        self._under_way = [*under_way, text]

    @property
    def tokens(self) -> Tokens:
        """The prompt is that of the first text that was read: those of later ones may hold what was made."""
        tokens = self._over
        for text in self._under_way:
            tokens = _with(tokens, text)
        return tokens


def _with(tokens: Tokens, text: Any) -> Tokens:
    if text.is_prefilling:
        return tokens
    made = text.detokenizer.num_output_tokens() if text.detokenizer else 0
    first = (
        tokens if tokens.prompt_tokens else Tokens(prompt_tokens=text.prompt_len, cached_tokens=text.num_cached_tokens)
    )
    return first.model_copy(update={"completion_tokens": tokens.completion_tokens + made})
