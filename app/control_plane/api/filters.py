"""Which of a list's entries are wanted: what lists over the API have in common beside their pages."""

from typing import Annotated, Any, Literal

from fastapi import Depends, Query

from app.core.moments import UtcMoment
from app.core.texts import Line

Text = Annotated[Line | None, Query(max_length=128)]
Moment = Annotated[UtcMoment | None, Query()]


def given(**filters: object) -> dict[str, Any]:
    """The filters that were given."""
    return {name: value for name, value in filters.items() if value is not None}


class Window:
    """Which of the things that happened to list; times as [since, until)."""

    def __init__(self, since: Moment = None, until: Moment = None, order: Literal["asc", "desc"] = "asc"):
        self.arguments: dict[str, Any] = {"since": since, "until": until, "newest_first": order == "desc"}


WindowDep = Annotated[Window, Depends()]
