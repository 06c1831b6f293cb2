"""What is kept for a time only, and leaves the platform after it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.control_plane.services.job_logs import JobLogs
from app.control_plane.services.logs import LogStore
from app.core.records import (
    AuditEntry,
    EndpointMinute,
    Event,
    Record,
    Replay,
    ScalingDecision,
    UsageHour,
    UsageSpool,
)
from app.store.database import Registry

AUDIT_KEPT = timedelta(days=400)
"""The database itself refuses to let younger entries go."""
MINUTES_KEPT = timedelta(hours=24)
REPLAYS_KEPT = timedelta(hours=24)
DECISIONS_KEPT = timedelta(days=30)
USAGE_KEPT = timedelta(days=400)
"""A year and the month in which it is settled. What is known of spools must last as long as a node may be away."""
LOGS_KEPT = timedelta(days=30)
BATCH = 10_000
"""Records that go in one transaction; other writers wait no longer than that."""

log = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Kept:
    """How long something is kept."""

    what: str
    kept_for: timedelta
    drop_before: Callable[[datetime], bool]
    """Removes what is older than a moment, not too much at once; returns whether nothing older is left."""


def retained_records(registry: Registry, events_kept_days: int) -> list[Kept]:
    """The registry's records that go by their age."""

    def kept(kind: type[Record], kept_for: timedelta) -> Kept:
        return Kept(kind.__name__, kept_for, lambda moment: registry.delete_before(kind, moment, BATCH) < BATCH)

    return [
        kept(Event, timedelta(days=events_kept_days)),
        kept(EndpointMinute, MINUTES_KEPT),
        kept(Replay, REPLAYS_KEPT),
        kept(ScalingDecision, DECISIONS_KEPT),
        kept(AuditEntry, AUDIT_KEPT),
        kept(UsageHour, USAGE_KEPT),
        kept(UsageSpool, USAGE_KEPT),
    ]


def retained_logs(logs: LogStore) -> Kept:
    """What units logged."""
    return Kept("logs", LOGS_KEPT, lambda moment: logs.drop_before(moment, BATCH) < BATCH)


def retained_job_logs(logs: JobLogs) -> Kept:
    """What jobs logged; those that were asked for have a copy elsewhere, which stays (S3, table 6-2)."""
    return Kept("logs of jobs", LOGS_KEPT, lambda moment: logs.drop_before(moment, BATCH) < BATCH)


class Retention:
    """Lets everything go in its time, one batch of each per step; app/control_plane/loop.py calls it."""

    def __init__(self, kept: Sequence[Kept], now: Callable[[], datetime]):
        self._kept = kept
        self._now = now

    def step(self) -> bool:
        """One round; returns whether nothing is left that is past its time."""
        return all([self._drop(kept) for kept in self._kept])

    def _drop(self, kept: Kept) -> bool:
        try:
            return kept.drop_before(self._now() - kept.kept_for)
        except Exception:  # what cannot go keeps nothing else
            log.exception("%s past their time could not be removed; that is tried again with the next round", kept.what)
            return True
