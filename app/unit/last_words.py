"""Why an engine could not start, in words for an operator."""

import re
from pathlib import Path

from app.core.errors import EngineStartError
from app.core.log_text import clean

_CAUSE = re.compile(r"(?:^|\s)((?:[A-Za-z_.]*(?:Error|Exception)): .+)$")
_HIDES_CAUSE = ("Engine core initialization failed", "See root cause above")
_LINES_READ = 400
_LIMIT_CHARACTERS = 1000


def last_words(error: Exception, log_file: Path) -> str:
    """The reason, on one line, as others may read it.

    vLLM reports a failure of its core process only as "initialization failed"; the cause is in the log, which
    the core shares.
    """
    if isinstance(error, EngineStartError):
        return EngineStartError.reason_in(str(error)) or ""
    words = f"{type(error).__name__}: {error}"
    if any(sign in words for sign in _HIDES_CAUSE):
        lines = log_file.read_text(errors="replace").splitlines()[-_LINES_READ:]
        causes = [match[1] for line in lines if (match := _CAUSE.search(line))]
        causes = [cause for cause in causes if not any(sign in cause for sign in _HIDES_CAUSE)]
        words = causes[-1] if causes else words
    return clean(" ".join(words.split()))[:_LIMIT_CHARACTERS]
