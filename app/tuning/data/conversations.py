"""What models are tuned on: conversations, and the rules that every format has in common."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from app.tuning.data.problems import Wrong

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)

MAX_CHARACTERS = 4 << 20
"""Of one line, one row or one conversation: about a million tokens, more than any model reads at once."""
MAX_TURNS = 1000
"""Of one conversation."""
MAX_ID = (1 << 63) - 1

_FOLLOWS: dict[Role | None, tuple[Role, ...]] = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one of them says."""

    role: Role
    content: str
    line: int = field(default=0, compare=False)
    """The line or row of the file that it comes from; 0 where there is none."""


Conversation = tuple[Turn, ...]
"""System first, if at all; then user and assistant by turns, texts of tools in between; the assistant has the last
word."""


def checked_text(value: object, column: str) -> str:
    """`value`, a text that models can be tuned on. Raises Wrong."""
    if not isinstance(value, str):
        raise Wrong(column, f"is {kind(value)}, not text", "write it as text")
    if not value or value.isspace():
        raise Wrong(column, "is empty", "fill it in, or remove the conversation")
    if "\0" in value:
        raise Wrong(column, "holds a NUL character", "remove it")
    if first_surrogate(value) is not None:
        raise Wrong(column, "holds half of a surrogate pair, which is no character", "write the file again as UTF-8")
    return value


def first_surrogate(text: str) -> int | None:
    """Where the first half of a surrogate pair is, which stands for no character; None for a sound text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def checked_id(value: object, column: str = "conversation_id") -> int:
    """`value`, a conversation's number. Raises Wrong."""
    if type(value) is not int:
        raise Wrong(column, f"is {kind(value)}, not a positive whole number", "number the conversations 1, 2, 3, ...")
    if not 1 <= value <= MAX_ID:
        raise Wrong(column, f"is not a whole number from 1 to {MAX_ID}", "number the conversations 1, 2, 3, ...")
    return value


def check_order(roles: Iterable[Role], column: str) -> None:
    """Whether turns come in an order that a chat can have. Raises Wrong."""
    before: Role | None = None
    seen: set[Role] = set()
    for number, role in enumerate(roles):
        if role not in _FOLLOWS[before]:
            after = f"after {before}" if before else "first"
            raise Wrong(
                f"{column}[{number}].role",
                f"{role} comes {after}, where only {' or '.join(_FOLLOWS[before])} may",
                "let user and assistant take turns, after one system message at most",
            )
        before = role
        seen.add(role)
    if "assistant" not in seen:
        raise Wrong(column, "has no assistant turn, so there is nothing to learn", "add the assistant's answer")
    if before != "assistant":
        raise Wrong(column, f"ends with {before}", "end every conversation with the assistant's answer")


def check_length(turns: int, characters: int, column: str) -> None:
    """Whether one conversation is of a size that can be read. Raises Wrong."""
    if turns > MAX_TURNS:
        raise Wrong(
            column, f"one conversation has more than {MAX_TURNS} turns", "give each conversation a number of its own"
        )
    if characters > MAX_CHARACTERS:
        raise Wrong(
            column, f"one conversation has more than {MAX_CHARACTERS} characters", "split it into shorter conversations"
        )


def kind(value: object) -> str:
    """What sort of value it is, in a few words that show nothing of it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    words = {str: "text", int: "a number", float: "a number with a fraction", list: "a list", dict: "an object"}
    return words.get(type(value), "another kind of value")


def checked_fields(value: object, names: tuple[str, ...], column: str) -> Mapping[str, object]:
    """`value`, a JSON object with exactly these keys. Raises Wrong."""
    if not isinstance(value, dict):
        raise Wrong(column, f"is {kind(value)}, not an object", f"write an object with {_listed(names)}")
    for name in value:
        if name not in names:
            raise Wrong(
                _inside(column, shown(name)), "is a key that is not known", f"only {_listed(names)} may be here"
            )
    for name in names:
        if name not in value:
            raise Wrong(_inside(column, name), "is missing", "add it")
    return value


def shown(name: str) -> str:
    """A name of a key or a column as it may be told: what is no plain name could be data."""
    return name if _PLAIN_NAME.fullmatch(name) else "one more"


def _inside(column: str, name: str) -> str:
    return f"{column}.{name}" if column else name


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join(names)
