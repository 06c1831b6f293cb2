"""When an endpoint is stopped or deleted by itself: pure, from its record and the moment."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.core.records import Endpoint

WARNED_BEFORE = timedelta(days=1)
UNHEARD = timedelta(minutes=5)
"""Routers tell of requests twice a minute at least, and of those that came while nobody listened."""


@dataclass(frozen=True)
class IdleRule:
    """Endpoints that may sleep (scale.min_units 0) are deleted after so long without a request (S2: 7 days)."""

    deleted_after: timedelta

    @property
    def warned_before(self) -> timedelta:
        """How long before that it is announced: a day, or half of a time that is too short for one."""
        return min(WARNED_BEFORE, self.deleted_after / 2)


@dataclass(frozen=True)
class Stop:
    """It has run for as long as it was to."""

    reason: str


@dataclass(frozen=True)
class Warn:
    """It is going to be deleted."""

    reason: str


@dataclass(frozen=True)
class Delete:
    """Nobody has called it, and that has been announced."""

    reason: str


def auto_stop_at(endpoint: Endpoint) -> datetime | None:
    """When it stops by itself; None while it has not begun to serve, has stopped, or has no such rule."""
    if endpoint.spec.auto_stop_s is None or endpoint.running_since is None:
        return None
    return endpoint.running_since + timedelta(seconds=endpoint.spec.auto_stop_s)


def due(
    endpoint: Endpoint, now: datetime, idle: IdleRule, heard_since: datetime | None = None
) -> Stop | Warn | Delete | None:
    """What to do with an endpoint by now. One that is stopped or being deleted is left alone.

    `heard_since`: since when routers could tell of requests; None: for long.
    """
    if endpoint.state in ("stopped", "deleting"):
        return None
    stop_at = auto_stop_at(endpoint)
    if stop_at is not None and now >= stop_at:
        return Stop(f"it has run for {endpoint.spec.auto_stop_s} s, as auto_stop_s says")
    if endpoint.spec.scale.min_units > 0 or endpoint.managed_by == "serve_config":
        return None  # what a file declares goes when the file says so
    quiet_since = _quiet_since(endpoint)
    warned_at = endpoint.idle_warned_at
    if warned_at is None or warned_at < quiet_since:
        warn_at = quiet_since + idle.deleted_after - idle.warned_before
        return Warn(_warning(quiet_since, now, idle)) if now >= warn_at else None
    if heard_since is not None and now < heard_since + UNHEARD:
        return None
    if now >= _delete_at(quiet_since, warned_at, idle):
        return Delete(f"nobody has called it since {_words(quiet_since)}")
    return None


def _quiet_since(endpoint: Endpoint) -> datetime:
    """The last request, or the last time that somebody made, changed, started or saw it begin to serve."""
    moments = (endpoint.created_at, endpoint.updated_at, endpoint.running_since, endpoint.last_request_at)
    return max(moment for moment in moments if moment is not None)


def _delete_at(quiet_since: datetime, warned_at: datetime, idle: IdleRule) -> datetime:
    """After the full time, but never without the time of warning: the platform may have been down when it was due."""
    return max(quiet_since + idle.deleted_after, warned_at + idle.warned_before)


def _warning(quiet_since: datetime, now: datetime, idle: IdleRule) -> str:
    return (
        f"nobody has called it since {_words(quiet_since)}; it will be deleted at "
        f"{_words(_delete_at(quiet_since, now, idle))} unless somebody calls it, changes it, or sets scale.min_units "
        "above 0"
    )


def _words(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
