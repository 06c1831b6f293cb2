"""A routing table of two workspaces, and the keys to it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from app.core.keys import hash_key
from app.core.routing import Grant, Route, RoutingTable, Target
from app.core.usage import Entry

NOW = datetime(2026, 2, 1, tzinfo=UTC)
KEY, OTHER_KEY, UNKNOWN_KEY = (f"mu-{letter * 43}" for letter in "kou")
"""The same in every process: what tests are called must not change."""


def table(number: int = 7) -> RoutingTable:
    """ep-1 and ep-down belong to KEY's workspace, ep-theirs to OTHER_KEY's."""
    targets = (Target(revision="r1", application="ep-1.r-r1"),)
    common = {"created_at": NOW, "state": "healthy", "targets": targets, "model": "m-1", "precision": "BF16"}
    down = common | {"state": "scheduling", "reason": "the first unit is starting", "targets": ()}
    routes = [
        Route(endpoint_id="ep-1", name="demo", workspace="mine", **common),
        Route(endpoint_id="ep-down", name="down", workspace="mine", **down),
        Route(endpoint_id="ep-theirs", name="theirs", workspace="theirs", **common),
    ]
    grants = {
        hash_key(KEY): Grant(workspace="mine", role="inference", key_id="key-1"),
        hash_key(OTHER_KEY): Grant(workspace="theirs", role="inference"),
    }
    return RoutingTable(number=number, routes={route.endpoint_id: route for route in routes}, grants=grants)


class NoControlPlane:
    """A source that never answers."""

    async def next_table(self, after: int, wait_s: float) -> bytes | None:
        raise ConnectionError


class Clock:
    """Stands still until the test moves it."""

    def __init__(self, now: float):
        self.now = now

    def __call__(self) -> float:
        return self.now


class Book:
    """Keeps in mind what is written into it."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def write(self, entry: Entry) -> None:
        self.entries.append(entry)

    @property
    def ended(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.begun]


class Others:
    """What the control plane knows of other routers and of units; an exception is raised."""

    def __init__(self) -> None:
        self.text: str | Exception = ConnectionError()

    async def metrics_text(self) -> str:
        if isinstance(self.text, Exception):
            raise self.text
        return self.text


MakeRouter = Callable[..., Any]
"""See the fixture make_router."""
