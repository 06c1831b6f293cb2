"""Lists in pages: `?page_size=&page_token=` in, `next_page_token` out."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Query

from app.core.errors import InvalidField

T = TypeVar("T")


class Page:
    """Which part of a list to show. The token is the last ID of the page before."""

    def __init__(
        self,
        page_size: Annotated[int, Query(ge=1, le=1000)] = 100,
        page_token: Annotated[str | None, Query(max_length=128)] = None,
    ):
        self._size = page_size
        self._token = page_token

    def of(
        self,
        items: Sequence[T],
        show: Callable[[T], dict[str, Any]],
        id_of: Callable[[T], str] = attrgetter("id"),
    ) -> dict[str, Any]:
        """The list body. Raises InvalidField for a token that names nothing in the list."""
        start = 0
        if self._token is not None:
            start = next((i + 1 for i, item in enumerate(items) if id_of(item) == self._token), -1)
            if start < 0:
                raise unknown_token()
        return self._body(items[start:], show, id_of)

    def read(
        self, find: Callable[..., Sequence[T]], show: Callable[[T], dict[str, Any]], **arguments: Any
    ) -> dict[str, Any]:
        """The list body, read no further than it goes: `find` takes `after` and `limit` as Registry.find does.

        Raises InvalidField for a token that names nothing.
        """
        try:
            items = find(**arguments, after=self._token, limit=self._size + 1)
        except ValueError:
            if self._token is None:
                raise
            raise unknown_token() from None
        return self._body(items, show, attrgetter("id"))

    def _body(
        self, rest: Sequence[T], show: Callable[[T], dict[str, Any]], id_of: Callable[[T], str]
    ) -> dict[str, Any]:
        shown = rest[: self._size]
        return {
            "object": "list",
            "data": [show(item) for item in shown],
            "next_page_token": id_of(shown[-1]) if len(rest) > self._size else None,
        }


def unknown_token() -> InvalidField:
    """What to raise for a token that names nothing."""
    return InvalidField("page_token is not one that this list gave out.", "page_token")


PageDep = Annotated[Page, Depends()]
Confirm = Annotated[str, Query(max_length=16)]
IfMatch = Annotated[str | None, Header(max_length=256)]


def confirmed(confirm: str) -> None:
    """Deletes must be meant. Raises InvalidField."""
    if confirm != "DELETE":
        raise InvalidField("Deleting needs ?confirm=DELETE.", "confirm")
