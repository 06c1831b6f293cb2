"""Idempotency-Key: a POST that is sent twice makes one record."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TypeVar

from pydantic import BaseModel

from app.control_plane.services.actor import current_act
from app.core.errors import Conflict, Unavailable
from app.core.records import Record, Replay
from app.store.database import Registry

T = TypeVar("T")

REPLAYS_COUNT = timedelta(hours=24)
"""Afterwards a key is as good as new."""
PATIENCE_S = 10.0
"""How long a repeat waits for the request that it repeats; each that waits holds one of the server's threads."""
Proof = Callable[[str], tuple[Record, ...]]
"""Given the ID of what is made: what is put together with it, in one transaction."""


def no_proof(record_id: str) -> tuple[Record, ...]:
    """For what is made without an Idempotency-Key."""
    return ()


class Idempotency:
    """What the callers' keys have made. It is known from the moment that the record is there, also after a crash."""

    def __init__(self, registry: Registry, now: Callable[[], datetime]):
        self._registry = registry
        self._now = now
        self._changing = threading.Condition()
        self._busy: set[str] = set()
        """The replays whose requests are being carried out now."""

    def once(
        self,
        workspace: str,
        path: str,
        key: str | None,
        body: BaseModel,
        make: Callable[[Proof], T],
        find: Callable[[str], T],
    ) -> T:
        """What `make` makes; or `find` of its ID, where it was made with this key already.

        `make` puts the proof it is given together with the record. Without a key it is simply called.
        Raises Conflict for a key that came with another body, Unavailable while the request that it repeats takes long,
        and whatever `make` and `find` raise.
        """
        if key is None:
            return make(no_proof)
        replay_id = _hash(workspace, path, key)
        body_hash = _hash(body.model_dump_json())
        with self._turn(replay_id):  # the same request twice at one moment: the second finds what the first has made
            now = self._now()
            known = self._registry.get(Replay, replay_id)
            if known is not None and now - known.created_at < REPLAYS_COUNT:
                if known.body_hash != body_hash:
                    raise Conflict(
                        "This Idempotency-Key came with another body before: take a new key for a new wish.",
                        "Idempotency-Key",
                        "idempotency_key_reused",
                    )
                if act := current_act():
                    act.subject = known.record_id
                return find(known.record_id)

            def proof(record_id: str) -> tuple[Record, ...]:
                return (
                    Replay(id=replay_id, created_at=now, workspace=workspace, body_hash=body_hash, record_id=record_id),
                )

            return make(proof)

    @contextmanager
    def _turn(self, replay_id: str) -> Iterator[None]:
        """One at a time for each key. Raises Unavailable when the one before takes too long."""
        with self._changing:
            if not self._changing.wait_for(lambda: replay_id not in self._busy, PATIENCE_S):
                raise Unavailable("Another request with this Idempotency-Key is still being carried out; try again.")
            self._busy.add(replay_id)
        try:
            yield
        finally:
            with self._changing:
                self._busy.remove(replay_id)
                self._changing.notify_all()


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
