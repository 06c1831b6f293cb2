"""What people may read of a job's output: its last part, in lines fit to be shown, without credentials."""

import re
from typing import NamedTuple

from app.core.log_lines import clean

LIMIT_CHARS = 4 << 20
"""What is kept and shown of a log: its end, where the reason is."""

_SECRETS = (
    # Known by their form.
    re.compile(r"()\b(?:AKIA|ASIA)[A-Z0-9]{12,}"),
    re.compile(r"()\bhf_[A-Za-z0-9]{20,}"),
    # Known by what stands beside them. Numbers are none, and tokens of a vocabulary begin with '<'.
    re.compile(r"(://)[^\s/@]+(?=@)"),
    re.compile(
        r"(?i)((?:secret|passw(?:or)?d|token|credentials?|signature|access_?key(?:_?id)?|api_?key|authorization)"
        r"[\"']?\s{0,3}[=:]\s{0,3}[\"']?)(?![\d.]+\b|<|bearer )[^\s\"'&,;)}]{6,}"
    ),
)


class JobLine(NamedTuple):
    """One line of a job's log."""

    number: int
    """Counted from 1, over all attempts."""
    text: str


class JobLog(NamedTuple):
    """The end of a job's log."""

    lines: tuple[JobLine, ...] = ()
    note: str = ""
    """Why there are none, or not all."""

    def matching(self, search: str) -> "JobLog":
        """Only the lines with this text, whatever the case."""
        wanted = search.casefold()
        return self._replace(lines=tuple(line for line in self.lines if wanted in line.text.casefold()))


def readable(text: str, limit_chars: int = LIMIT_CHARS) -> JobLog:
    """The end of what a process wrote, in whole lines, as others may see it."""
    start = 0
    if len(text) > limit_chars:
        start = text.find("\n", len(text) - limit_chars) + 1 or len(text)
    left_out = text.count("\n", 0, start)
    lines = text[start:].split("\n")
    if not lines[-1]:
        lines.pop()  # what follows the last line's end
    shown = tuple(JobLine(number, clean(without_secrets(line))) for number, line in enumerate(lines, left_out + 1))
    return JobLog(shown, f"The first {left_out} lines are left out." if left_out else "")


def without_secrets(text: str) -> str:
    """`text` with what looks like a credential hidden."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1***", text)
    return text
