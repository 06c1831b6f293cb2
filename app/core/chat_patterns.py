"""How much a regular expression of a schema comes to when its counted repeats are written out, as engines do."""

import re

_REPEAT = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_MOST = 10**9


def unrolled(pattern: str) -> int:
    """Characters, about: what follows one another adds up, and a counted repeat multiplies what it repeats."""
    sums, last, at = [0], [0], 0
    while at < len(pattern):
        here = pattern[at]
        if here == "{" and (repeat := _REPEAT.match(pattern, at)):
            times = max(int(number[:9] or 0) for number in repeat.groups(default=""))
            last[-1] = min(_MOST, last[-1] * max(1, times))
            at = repeat.end()
            continue
        atom = 1
        if here == "\\":
            at += 1
        elif here == "[":
            at = _end_of_class(pattern, at)
        elif here == "(":
            sums.append(0)
            last.append(0)
            at += 1
            continue
        elif here == ")" and len(sums) > 1:
            atom = min(_MOST, sums.pop() + last.pop())
        sums[-1] = min(_MOST, sums[-1] + last[-1])
        last[-1] = atom
        at += 1
    return sum(sums) + sum(last)


def _end_of_class(pattern: str, at: int) -> int:
    """Where the class that begins here ends; the pattern's end for one that does not."""
    at += 1
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at
