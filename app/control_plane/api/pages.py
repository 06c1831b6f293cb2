"""Lists in pages: `?page_size=&page_token=` in, `next_page_token` out."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query

from app.core.errors import InvalidField
from app.core.records import Record

R = TypeVar("R", bound=Record)


class Page:
    """Which part of a list to show. The token is the last ID of the page before."""

    def __init__(
        self,
        page_size: Annotated[int, Query(ge=1, le=1000)] = 100,
        page_token: Annotated[str | None, Query(max_length=128)] = None,
    ):
        self._size = page_size
        self._token = page_token

    def of(self, records: Sequence[R], show: Callable[[R], dict[str, Any]]) -> dict[str, Any]:
        """The list body. Raises InvalidField for a token that names nothing in the list."""
        start = 0
        if self._token is not None:
            start = next((i + 1 for i, record in enumerate(records) if record.id == self._token), -1)
            if start < 0:
                raise InvalidField("page_token is not one that this list gave out.", "page_token")
        shown = records[start : start + self._size]
        more = start + self._size < len(records)
        return {
            "object": "list",
            "data": [show(record) for record in shown],
            "next_page_token": shown[-1].id if more else None,
        }


PageDep = Annotated[Page, Depends()]
