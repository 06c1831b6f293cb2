"""How measuring ends that is asked to stop."""

from collections.abc import Callable

Tell = Callable[[str], bool]
"""Hears what is done now; returns True when it is to stop."""


class Stopped(Exception):
    """It was asked to stop, and did."""


def go_on(tell: Tell, what: str) -> None:
    """Tell what is done now. Raises Stopped when it is not to be done any more."""
    if tell(what):
        raise Stopped
