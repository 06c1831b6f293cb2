"""A line of any log as others may read it: no secrets, no folders of the machine, nothing that moves a cursor. Pure."""

import re

from app.core.errors import without_paths

MAX_CHARACTERS = 4096
_CUT = " ... (cut)"
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
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
    # Keys of our own.
    re.compile(r"(mu-)[A-Za-z0-9_-]{43}"),
    re.compile(r"(?i)(bearer\s+)[A-Za-z0-9._~+/=-]{8,}"),
)


def clean(line: str) -> str:
    """The line as others may read it: no secrets, no folders of the machine, no control characters, and not endless.

    Of what a terminal would have overwritten, such as a progress bar, the last state stays.
    """
    line = line.rstrip().rpartition("\r")[2]
    line = _CONTROL.sub(" ", _ESCAPE.sub("", line))
    line = without_paths(without_secrets(line))
    return line if len(line) <= MAX_CHARACTERS else line[: MAX_CHARACTERS - len(_CUT)] + _CUT


def without_secrets(text: str) -> str:
    """`text` with what looks like a credential hidden."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1***", text)
    return text
