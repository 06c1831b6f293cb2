"""Times as people type them: 90s, 30m, 4h, 7d, or a moment."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

_SPAN = re.compile(r"([1-9]\d{0,8})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_FORMS = "such as 90s, 30m, 4h or 7d"
_MOMENT = "or a moment such as 2026-01-31T09:00:00Z"


def seconds(text: str) -> int:
    """A span in seconds. Raises BadParameter."""
    found = _span(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no span of time; write it {_FORMS}")
    return found


def ahead(text: str, now: datetime | None = None) -> str:
    """A span from now on, or a moment, in RFC 3339. Raises BadParameter."""
    return _moment(text, 1, now)


def ago(text: str, now: datetime | None = None) -> str:
    """A span back from now, or a moment, in RFC 3339. Raises BadParameter."""
    return _moment(text, -1, now)


Since = Annotated[str | None, typer.Option(parser=ago, metavar="TIME", help="Such as 2h (two hours ago), or a moment.")]
Until = Annotated[str | None, typer.Option(parser=ago, metavar="TIME", help="The same.")]
"""A window of time."""


def _moment(text: str, direction: int, now: datetime | None) -> str:
    span = _span(text)
    try:
        if span is not None:
            return ((now or datetime.now(UTC)) + direction * timedelta(seconds=span)).isoformat()
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no time; write a span {_FORMS}, {_MOMENT}") from None
    return moment.astimezone(UTC).isoformat()  # without a zone it is this machine's own time


def _span(text: str) -> int | None:
    found = _SPAN.fullmatch(text)
    return int(found[1]) * _SECONDS[found[2]] if found else None
