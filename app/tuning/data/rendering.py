"""Conversations as a model's own chat template writes them, and which of the text the assistant writes."""

import re
from collections.abc import Iterator
from datetime import date
from typing import NamedTuple

from app.tuning.data.conversations import Conversation
from app.tuning.data.problems import Wrong
from app.tuning.data.tokenizer import Tokenizer, checked_tokenizer

Span = tuple[int, int]
"""Characters [start, end)."""

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_TODAY = date(2024, 7, 26)
"""For templates that write the date: the same file gives the same samples whenever a job begins again."""
_FITTING = "write conversations that the model can have, or use another chat template"


class Rendered(NamedTuple):
    """One text to train on."""

    text: str
    spans: list[Span]
    """What the assistant writes, in order; the template's own line ends behind the end of a turn may be in it."""


class ChatTemplate:
    """A tokenizer's chat template."""

    def __init__(self, tokenizer: Tokenizer):
        """Raises TokenizerUnusable when there is none."""
        self._template: str = checked_tokenizer(tokenizer).get_chat_template()
        self._marked = bool(_MARKS.search(self._template))
        self._variables = {**tokenizer.special_tokens_map, "strftime_now": _TODAY.strftime}

    def render(self, conversation: Conversation) -> Iterator[Rendered]:
        """Mostly one text. Raises Wrong when the template refuses the conversation.

        Where a template marks what the assistant writes, the marks count. Else it is what stands between a
        conversation up to an assistant's turn, with the prompt to go on, and the conversation with that turn. A
        template that writes a turn in another way once others follow (without its reasoning, say) gives one text
        more for each such turn: the conversation up to it, of which that turn alone is learnt, just as the model
        will have to write it.
        """
        messages = [{"role": turn.role, "content": turn.content} for turn in conversation]
        if self._marked:
            text, spans = self._rendered(messages, marks=True)
            if not spans:
                raise Wrong("", "the chat template marks nothing as the assistant's", "mend its generation marks")
            yield Rendered(text, spans)
            return
        whole, _ = self._rendered(messages)
        spans = []
        last = len(messages) - 1
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            text = whole if number == last else self._rendered(messages[: number + 1])[0]
            start = self._start(messages[:number], text, message["content"])
            if start < len(text) and whole.startswith(text):
                spans.append((start, len(text)))
            else:
                yield Rendered(text, [(start, len(text))])
        yield Rendered(whole, spans)

    def _start(self, before: list[dict[str, str]], text: str, content: str) -> int:
        """Where in `text` the assistant begins to write `content`, after the messages before."""
        prompt, _ = self._rendered(before, prompt=True)
        if text.startswith(prompt):
            return len(prompt)
        # The prompt to go on may begin an answer (with "<think>", say) in a way that finished turns do not show.
        history, _ = self._rendered(before)
        start = next((i for i, (a, b) in enumerate(zip(prompt, text, strict=False)) if a != b), len(text))
        if start < len(history):
            raise Wrong(
                "",
                "the model's chat template writes earlier turns in another way before an answer than with it",
                "use the chat template of the base model, or add generation marks to this one",
            )
        shown = text.find(content.strip(), len(history))
        return start if shown < 0 else min(start, shown)

    def _rendered(
        self, messages: list[dict[str, str]], *, prompt: bool = False, marks: bool = False
    ) -> tuple[str, list[Span]]:
        from transformers.utils.chat_template_utils import render_jinja_template  # noqa: PLC0415 (seconds)

        try:
            texts, spans = render_jinja_template(
                [messages],
                chat_template=self._template,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=marks,
                **self._variables,
            )
        except Exception as error:  # a template may raise anything
            raise Wrong("", f"the model's chat template refuses it{self._reason(error)}", _FITTING) from None
        return texts[0], [(start, end) for start, end in spans[0]] if marks else []

    def _reason(self, error: Exception) -> str:
        """In the template's own words, never in those of the data."""
        said = str(error)
        return f": {said[:200]}" if said and said in self._template else f" ({type(error).__name__})"
