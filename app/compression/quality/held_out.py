"""What versions are measured on: texts, questions and probes, written for this project and never calibrated on."""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "data"
_QUESTIONS, _PROBES = _FOLDER / "questions.json", _FOLDER / "probes.json"


@dataclass(frozen=True)
class Item:
    """The beginning of a text, and ways to go on of which only the first is right."""

    text: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """A probe: items that ask for the same kind of thing."""

    name: str
    items: tuple[Item, ...]


@cache
def texts() -> tuple[str, ...]:
    """Prose in several languages, code, reasoning and a dialogue."""
    return tuple(path.read_text("utf-8") for path in _files())


@cache
def questions() -> tuple[str, ...]:
    """What a person might ask first."""
    return tuple(json.loads(_QUESTIONS.read_bytes()))


@cache
def tasks() -> tuple[Task, ...]:
    """The probes; a model that knows nothing is right in a third of their items, more or less."""
    return tuple(
        Task(each["name"], tuple(Item(item["text"], tuple(item["options"])) for item in each["items"]))
        for each in json.loads(_PROBES.read_bytes())
    )


@cache
def sha256() -> str:
    """Of all of it: cards with another one are not comparable."""
    digest = hashlib.sha256()
    for path in (*_files(), _QUESTIONS, _PROBES):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _files() -> list[Path]:
    return sorted((_FOLDER / "held_out").glob("*.txt"))
