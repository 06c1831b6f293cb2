"""The whole platform on one machine, for `modelunit up`, `down` and `doctor`."""

from collections.abc import Callable

Say = Callable[[str], None]
"""Hears what a long command is at."""


class StartFailed(Exception):
    """The platform could not start; the message says why and what to do."""
