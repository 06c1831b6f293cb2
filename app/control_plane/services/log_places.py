"""Places for logs that are sent as one long text, for there are not threads and connections without end."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from app.core.errors import TooManyRequests

MAX_STREAMS = 16
MAX_STREAMS_PER_WORKSPACE = 4


class LogPlaces:
    """One for each log that is being followed or downloaded. For one thread."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, workspace: str) -> Iterator[None]:
        """A place, for as long as this lasts. Raises TooManyRequests at once when there is none."""
        if self._taken[workspace] >= MAX_STREAMS_PER_WORKSPACE or self._taken.total() >= MAX_STREAMS:
            raise TooManyRequests("Too many logs are being followed or downloaded already; try again later.")
        self._taken[workspace] += 1
        try:
            yield
        finally:
            self._taken[workspace] -= 1
            if not self._taken[workspace]:
                del self._taken[workspace]
