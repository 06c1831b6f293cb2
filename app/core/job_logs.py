"""What people may read of a job's output: its last part, in lines fit to be shown."""

from typing import NamedTuple

from app.core.log_text import clean

LIMIT_CHARS = 4 << 20
"""What is kept and shown of a log: its end, where the reason is."""


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


def readable(text: str, limit_chars: int = LIMIT_CHARS, *, after: int = 0) -> JobLog:
    """The end of what a process wrote, in whole lines, as others may see it; of them those behind number `after`."""
    start = 0
    if len(text) > limit_chars:
        start = text.find("\n", len(text) - limit_chars) + 1 or len(text)
    left_out = text.count("\n", 0, start)
    lines = text[start:].split("\n")
    if not lines[-1]:
        lines.pop()  # what follows the last line's end
    shown = tuple(JobLine(number, clean(line)) for number, line in enumerate(lines, left_out + 1) if number > after)
    return JobLog(shown, f"The first {left_out} lines are left out." if left_out else "")


def count_lines(text: str) -> int:
    """How many lines a text has, with or without an end of the last one."""
    return text.count("\n") + (not text.endswith("\n") and text != "")
