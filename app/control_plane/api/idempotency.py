"""The Idempotency-Key header."""

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request
from pydantic import BaseModel

from app.control_plane.api.access import Developer, PlatformDep
from app.control_plane.services.idempotency import Proof
from app.core.texts import Line

T = TypeVar("T")


class Once:
    """A POST that makes a record, once for each Idempotency-Key."""

    def __init__(
        self,
        request: Request,
        caller: Developer,
        platform: PlatformDep,
        idempotency_key: Annotated[Line | None, Header(min_length=1, max_length=256)] = None,
    ):
        self._idempotency = platform.idempotency
        self._workspace = caller.workspace
        self._path = request.scope["route"].path.format(**request.path_params)
        self._key = idempotency_key

    def make(self, body: BaseModel, make: Callable[[Proof], T], find: Callable[[str], T]) -> T:
        """What `make` makes, or what it has made for this key before, as `find` finds it. Raises Conflict."""
        return self._idempotency.once(self._workspace, self._path, self._key, body, make, find)


OnceDep = Annotated[Once, Depends()]
