"""From wishes and what is seen to what to do next: pure, so that any crash leads back to the same answer."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from app.core.records import Endpoint, EndpointState

ApplicationStatus = Literal["starting", "running", "unhealthy", "failed", "leaving"]
_SEPARATOR = ".r-"


@dataclass(frozen=True)
class Seen:
    """One Serve application of ours, as the cluster reports it."""

    endpoint_id: str
    revision: str
    status: ApplicationStatus
    reason: str = ""
    running_units: int = 0
    phase: str = ""
    """What a unit that is not ready yet does or waits for, such as "checking weights"; empty when nobody knows."""
    starting_units: int = 0
    target_units: int | None = None
    """How many units there are to be now; None when nobody knows."""
    starting_since: float | None = None
    """Unix time at which the first of those that start was begun."""
    cannot_start: bool = False
    """Serve has tried, and `reason` says why; it goes on trying as long as one is to run."""


@dataclass(frozen=True)
class Deploy:
    """Create the application of a revision, or bring its scale range up to date in place."""

    endpoint_id: str
    revision: str


@dataclass(frozen=True)
class Remove:
    """Drain and delete an application."""

    endpoint_id: str
    revision: str


@dataclass(frozen=True)
class Refused:
    """The last step for an endpoint failed."""

    reason: str
    too_early: bool
    """Not to be tried again yet."""


@dataclass(frozen=True)
class Verdict:
    """What an endpoint's record should say now."""

    state: EndpointState
    reason: str
    serving: str | None
    """The revision that takes traffic."""
    running_units: int
    done: bool
    """The wish is carried out in full."""
    starting_units: int = 0
    target_units: int = 0


@dataclass
class Plan:
    """The next steps; each may fail on its own and is planned again."""

    actions: list[Deploy | Remove] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    """Of endpoints that are to run."""
    resting: dict[str, Verdict] = field(default_factory=dict)
    """Of those that are to be stopped or deleted."""
    gone: list[str] = field(default_factory=list)
    """Endpoints being deleted of which nothing is left."""


def revision_of(*parts: str) -> str:
    """The name of a revision: the same parts always give the same one, so that only a real change restarts units."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def application_name(endpoint_id: str, revision: str) -> str:
    """The Serve application of a revision."""
    return f"{endpoint_id}{_SEPARATOR}{revision}"


def parse_application_name(name: str) -> tuple[str, str] | None:
    """Endpoint ID and revision, or None for an application that is not a unit's."""
    endpoint_id, separator, revision = name.partition(_SEPARATOR)
    return (endpoint_id, revision) if separator and endpoint_id.startswith("ep-") else None


def plan(
    endpoints: Iterable[Endpoint],
    wanted: Mapping[str, str],
    problems: Mapping[str, str],
    seen: Iterable[Seen],
    carried_out: Mapping[tuple[str, str], int],
    refused: Mapping[str, Refused] = MappingProxyType({}),
    awaited: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """What to do next.

    `wanted`: the revision each endpoint should run; `problems`: why an endpoint has none (its model is not ready);
    `carried_out`: the generation last deployed to each (endpoint ID, revision), empty after a restart;
    `refused`: the endpoints for which the last step failed; `awaited`: what endpoints without a revision wait for.
    A revision that serves stays until its successor runs and the record says so (the routers know by then), and a
    successor that fails never takes it down.
    """
    result = Plan()
    by_endpoint: dict[str, dict[str, Seen]] = {}
    for app in seen:
        by_endpoint.setdefault(app.endpoint_id, {})[app.revision] = app
    for endpoint in endpoints:
        apps = by_endpoint.pop(endpoint.id, {})
        refusal = refused.get(endpoint.id)
        waits = refusal is not None and refusal.too_early
        if endpoint.state in ("deleting", "stopped"):
            if not waits:
                result.actions += [Remove(endpoint.id, r) for r, app in apps.items() if app.status != "leaving"]
            if endpoint.state == "deleting" and not apps:
                result.gone.append(endpoint.id)
            draining = sum(app.running_units for app in apps.values())
            deleting = refusal.reason if refusal else ""
            reason = endpoint.reason if endpoint.state == "stopped" else deleting
            result.resting[endpoint.id] = Verdict(endpoint.state, reason, None, draining, done=not apps)
            continue
        revision = wanted.get(endpoint.id)
        up_to_date = bool(revision) and carried_out.get((endpoint.id, revision or "")) == endpoint.generation
        if revision and (revision not in apps or not up_to_date) and not waits:
            result.actions.append(Deploy(endpoint.id, revision))
        verdict = _judge(endpoint, revision, problems.get(endpoint.id, ""), apps, up_to_date)
        if endpoint.id in awaited:
            verdict = replace(verdict, reason=awaited[endpoint.id])
        if refusal and endpoint.id not in problems:
            verdict = replace(verdict, state="alarm" if verdict.serving else "abnormal", reason=refusal.reason)
        result.verdicts[endpoint.id] = _counted(verdict, endpoint, apps, revision)
        result.actions += [
            Remove(endpoint.id, r)
            for r, app in apps.items()
            if r not in (verdict.serving, revision, endpoint.revision) and app.status != "leaving" and not waits
        ]
    for endpoint_id, apps in by_endpoint.items():  # nobody wishes for these
        result.actions += [Remove(endpoint_id, r) for r, app in apps.items() if app.status != "leaving"]
    return result


def _judge(
    endpoint: Endpoint, revision: str | None, problem: str, apps: Mapping[str, Seen], up_to_date: bool
) -> Verdict:
    new = apps.get(revision) if revision else None
    old = apps.get(endpoint.revision) if endpoint.revision else None
    if new and (new.status == "running" or _rests(endpoint, new)):
        return _judge_running(endpoint, new, up_to_date)
    if old and old is not new and _serves(old):
        if problem or (new and new.status == "failed"):
            reason = f"the new revision cannot serve: {problem or (new.reason if new else '')}"
            return Verdict("alarm", reason, old.revision, old.running_units, done=False)
        reason = "a new revision is starting" + (f": {new.phase}" if new and new.phase else "")
        return Verdict("upgrading", reason, old.revision, old.running_units, done=False)
    if problem:
        return Verdict("abnormal", problem, None, 0, done=False)
    if new is None or new.status == "leaving":
        return Verdict("scheduling", "waiting to be deployed", None, 0, done=False)
    if new.status == "failed" and endpoint.revision == revision and _serves(new):
        return Verdict("alarm", new.reason or "a unit could not start", revision, new.running_units, done=False)
    if new.status == "failed":
        return Verdict("abnormal", new.reason or "the unit could not start", None, 0, done=False)
    if new.status == "unhealthy" and new.cannot_start:
        # Whoever waits is told so, and nobody waits any more until a unit runs.
        serving = revision if new.running_units else None
        reason = new.reason or "a unit could not start"
        return Verdict("alarm" if serving else "abnormal", reason, serving, new.running_units, done=False)
    if new.status == "unhealthy":
        # It keeps its traffic: requests wait in the handle for the unit that replaces the lost one.
        reason = f"a unit was lost; another is {new.phase or 'starting'}"
        return Verdict("abnormal", reason, revision, new.running_units, done=False)
    if endpoint.revision == revision:
        # It has served: requests wait in the handle while Serve, whose controller may be new, finds its units again.
        reason = f"a further unit is {new.phase}" if new.phase else "units are starting or leaving"
        return Verdict("scaling", reason, revision, new.running_units, done=False)
    reason = new.reason or "the first unit is starting"
    if new.phase:
        reason = f"{'a further' if new.running_units else 'the first'} unit is {new.phase}"
    return Verdict("scheduling", reason, None, new.running_units, done=False)


def _judge_running(endpoint: Endpoint, app: Seen, up_to_date: bool) -> Verdict:
    """Of an application that keeps the traffic, whatever comes: a call to one that sleeps wakes it."""
    running, target = app.running_units, app.target_units
    if not running and endpoint.spec.scale.min_units == 0:
        if target:
            return Verdict("waking", f"a unit is {app.phase or 'starting'}", app.revision, running, done=up_to_date)
        return Verdict("sleeping", "nobody calls, so no unit runs", app.revision, running, done=up_to_date)
    if target is not None and 0 < running < target:
        reason = f"a further unit is {app.phase or 'starting'}"
        return Verdict("scaling", reason, app.revision, running, done=up_to_date)
    if target is not None and running > target:
        return Verdict("scaling", "units are leaving", app.revision, running, done=up_to_date)
    return Verdict("healthy", "", app.revision, running, done=up_to_date)


def _rests(endpoint: Endpoint, app: Seen) -> bool:
    """Whether it is being changed in place while it sleeps or wakes."""
    asleep = endpoint.state in ("sleeping", "waking") and endpoint.revision == app.revision
    return asleep and app.status == "starting" and not app.running_units and endpoint.spec.scale.min_units == 0


def _counted(verdict: Verdict, endpoint: Endpoint, apps: Mapping[str, Seen], revision: str | None) -> Verdict:
    """With the units of all its revisions that come, and of those that are to be."""
    coming = sum(app.starting_units for app in apps.values() if app.status != "leaving")
    app = apps.get(revision or "") or apps.get(verdict.serving or "")
    target = app.target_units if app and app.target_units is not None else endpoint.spec.scale.min_units
    return replace(verdict, starting_units=coming, target_units=target)


def _serves(app: Seen) -> bool:
    """Whether requests find units there; they do, too, while units come and go or further ones cannot start."""
    return app.status in ("running", "unhealthy") or (app.status in ("starting", "failed") and app.running_units > 0)
