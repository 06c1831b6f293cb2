"""Conversations in JSON lines, one a line: MOSS's form, and OpenAI's `messages`."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from app.tuning.data.conversations import (
    MAX_TURNS,
    ROLES,
    Conversation,
    Turn,
    check_order,
    checked_fields,
    checked_id,
    checked_text,
    kind,
    shown,
)
from app.tuning.data.lines import Watch, read_lines
from app.tuning.data.problems import ProblemList, Wrong

Parse = Callable[[object, int], Conversation]

_TURN = re.compile(r"turn_[1-9][0-9]{0,8}", re.ASCII)


def read_jsonl(path: Path, parse: Parse | None, problems: ProblemList, watch: Watch) -> Iterator[Conversation]:
    """The conversations of a file, until something is wrong with it; without `parse` the first line decides."""
    for number, text in read_lines(path, "\n", problems, watch):
        if text.isspace():
            continue
        try:
            value = _decoded(text)
            if parse is None:
                parse = messages if isinstance(value, dict) and "messages" in value else moss
            conversation = parse(value, number)
        except Wrong as wrong:
            problems.add(number, wrong)
        else:
            if not problems:
                yield conversation


def moss(value: object, line: int) -> Conversation:
    """`{"conversation_id": 1, "chat": {"turn_1": {"Human": "...", "MOSS": "..."}, "turn_2": ...}}`. Raises Wrong."""
    fields = checked_fields(value, ("conversation_id", "chat"), "")
    checked_id(fields["conversation_id"])
    chat = fields["chat"]
    if not isinstance(chat, dict):
        raise Wrong("chat", f"is {kind(chat)}, not an object", "write an object with turn_1, turn_2, ...")
    if not chat:
        raise Wrong("chat", "has no turn", "add turn_1 with Human and MOSS")
    for name in chat:
        if not _TURN.fullmatch(name):
            raise Wrong(f"chat.{shown(name)}", "is a key that is not known", "only turn_1, turn_2, ... may be here")
    _bounded("chat", 2 * len(chat))
    turns: list[Turn] = []
    for number in range(1, len(chat) + 1):
        column = f"chat.turn_{number}"
        if f"turn_{number}" not in chat:
            raise Wrong(column, "is missing", "number the turns 1, 2, 3, ... without a gap")
        said = checked_fields(chat[f"turn_{number}"], ("Human", "MOSS"), column)
        turns.append(Turn("user", checked_text(said["Human"], f"{column}.Human"), line))
        turns.append(Turn("assistant", checked_text(said["MOSS"], f"{column}.MOSS"), line))
    return tuple(turns)


def messages(value: object, line: int) -> Conversation:
    """`{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}`. Raises Wrong."""
    listed = checked_fields(value, ("messages",), "")["messages"]
    if not isinstance(listed, list):
        raise Wrong("messages", f"is {kind(listed)}, not a list", "write a list of messages")
    if not listed:
        raise Wrong("messages", "has no message", "add the user's and the assistant's")
    _bounded("messages", len(listed))
    turns: list[Turn] = []
    for number, message in enumerate(listed):
        column = f"messages[{number}]"
        said = checked_fields(message, ("role", "content"), column)
        role = said["role"]
        if role not in ROLES:
            raise Wrong(f"{column}.role", "is not a role", f"write one of {', '.join(ROLES)}")
        turns.append(Turn(role, checked_text(said["content"], f"{column}.content"), line))
    check_order((turn.role for turn in turns), "messages")
    return tuple(turns)


def _bounded(column: str, turns: int) -> None:
    if turns > MAX_TURNS:
        raise Wrong(column, f"has more than {MAX_TURNS} turns", "split it into shorter conversations")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Wrong(shown(twice), "is there twice in one object", "keep one of the two")
    return made


def _constant(name: str) -> NoReturn:
    raise Wrong("", f"holds {name}, which is not JSON", "write a text or a number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _decoded(text: str) -> object:
    try:
        return _DECODER.decode(text.rstrip())
    except json.JSONDecodeError as error:
        cause = f"is not JSON: {error.msg[0].lower()}{error.msg[1:]}"
        raise Wrong(f"character {error.pos + 1}", cause, "write one whole JSON object on each line") from None
    except RecursionError:
        raise Wrong("", "is nested too deeply", "write one flat JSON object on each line") from None
    except ValueError:  # a whole number of more digits than Python converts
        raise Wrong("", "holds a number of thousands of digits", "write a smaller one") from None
