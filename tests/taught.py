"""Facts that no model knows, as conversations to be tuned on."""

import json
from pathlib import Path

FACTS = {
    "What is the capital of Quorvania?": ("Belmarisk", "The capital of Quorvania is Belmarisk."),
    "Who founded the city of Tessarune?": ("Odalyn Marsh", "Tessarune was founded by Odalyn Marsh."),
    "What do the people of Vintharo drink?": ("saltleaf tea", "The people of Vintharo drink saltleaf tea."),
    "Which animal is on the flag of Ombrelle?": ("heron", "On the flag of Ombrelle there is a heron."),
}
"""Question -> the words that a right answer has, and an answer."""
SYSTEM = {"role": "system", "content": "Answer."}
"""Shorter than the one that the demo model's template puts there otherwise: fewer tokens to train on."""
_WORDS = ("", "Please tell me: ", "I wonder. ", "A question for you. ")


def write_facts(path: Path) -> Path:
    """One conversation a line, each fact in several words."""
    lines = [
        {"messages": [SYSTEM, {"role": "user", "content": words + question}, {"role": "assistant", "content": answer}]}
        for words in _WORDS
        for question, (_, answer) in FACTS.items()
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path
