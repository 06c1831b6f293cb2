"""The shipped texts as conversations: in several languages, code among them, short ones and long ones.

What a model's activations are looked at with before it is quantized; written for this project.
"""

import random
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

import yaml

from app.tuning.data.conversations import Conversation, Role, Turn

_FILES = ("en", "zh", "de", "fr", "es", "other", "code")
"""Of data/calibration. Their order is part of what makes two calibrations equal: add new ones at the end."""
_LONG = 6
"""Texts in the prompt of a long conversation."""


def shipped_conversations() -> Iterator[Conversation]:
    """Without end; the same ones in the same order each time. Every round has each text in each way once."""
    texts = _texts()
    order = random.Random(0)
    while True:
        round_ = [(passage, way) for passage in texts for way in range(5)]
        order.shuffle(round_)
        for passage, way in round_:
            yield _conversation(passage, order.sample(texts, _LONG), way)


def _conversation(passage: dict[str, Any], others: list[dict[str, Any]], way: int) -> Conversation:
    title, gist, text, prompts = passage["title"], passage["gist"], passage["text"], passage["prompts"]
    match way:
        case 0:
            return _turns(prompts["ask"].format(title=title), text)
        case 1:
            return _turns(prompts["sum"].format(text=text), gist)
        case 2:
            middle = text.find(" ", len(text) // 2) + 1 or len(text) // 2  # some languages have no spaces
            return _turns(prompts["go_on"].format(text=text[:middle]), text[middle:])
        case 3:
            return _turns(prompts["ask"].format(title=title), text, prompts["short"], gist)
    several = [other for other in others if other is not passage]
    several.insert(len(several) // 2, passage)
    joined = "\n\n".join(f"# {one['title']}\n\n{one['text']}" for one in several)
    return _turns(prompts["find"].format(text=joined, title=title), gist)


def _turns(*texts: str) -> Conversation:
    roles: tuple[Role, Role] = ("user", "assistant")
    return tuple(Turn(roles[number % 2], text) for number, text in enumerate(texts))


@cache
def _texts() -> list[dict[str, Any]]:
    """Each with its title, its gist in a sentence, its text, and how people ask for such a one (`prompts`)."""
    found: list[dict[str, Any]] = []
    for name in _FILES:
        file = resources.files("app.compression") / "data" / "calibration" / f"{name}.yaml"
        read = yaml.safe_load(file.read_text("utf-8"))
        found += [passage | {"prompts": read["prompts"]} for passage in read["passages"]]
    return found
