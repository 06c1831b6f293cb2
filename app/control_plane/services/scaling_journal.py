"""The journal of scaling: every change of how many units an endpoint is to have, and what it followed from.

The decisions are made inside Serve's controller, which cannot reach the registry. So it leaves each in Ray's own
key-value store, and here they are written down and taken away there, in this order: one that is read twice is the
same record again. What Serve does itself, when the range of an application changes, it tells nobody: whoever changes
the range has it written down.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from app.core.errors import Superseded
from app.core.lifecycle import Seen
from app.core.records import Endpoint, ScalingDecision
from app.core.scaling import Rules, Signals, Timers, decide, journal_row
from app.store.database import Registry

PERIOD_S = 1.0
PREFIX = "modelunit:scaling:"
"""What the keys of decisions begin with, as app/unit/scaling_policy.py writes them."""

log = logging.getLogger("ray.serve")


class NotesPort(Protocol):
    """What the journal needs of a cluster; see app/control_plane/cluster.py."""

    def read_notes(self, prefix: str) -> Mapping[str, bytes]: ...
    def drop_notes(self, keys: Collection[str]) -> None: ...


class ScalingJournal:
    """Collects decisions, and reads them."""

    def __init__(
        self,
        registry: Registry,
        cluster: NotesPort,
        lock: threading.RLock,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._registry = registry
        self._cluster = cluster
        self._lock = lock
        self._clock = clock
        self._due_at = 0.0
        self._failing = False

    def collect(self) -> None:
        """Write down what was decided since the last time, at most once in PERIOD_S. Raises Superseded only."""
        if self._clock() < self._due_at:
            return
        try:
            self._collect()
            self._failing = False
        except Superseded:
            raise
        except Exception:  # they stay where they are; scaling itself goes on
            if not self._failing:
                log.exception("decisions about scaling cannot be written down for now")
            self._failing = True
        self._due_at = self._clock() + PERIOD_S

    def changed_in_place(self, app: Seen, rules: Rules, at: datetime) -> None:
        """Write down where Serve brings the target of `app`, as it was seen before, inside the range of new rules.

        It does so before it asks the policy, and about a fixed number of units it asks none. Raises Superseded only.
        """
        if app.target_units is None:
            return
        # How much there is to do is not known here, and bounds do not depend on it.
        signals = Signals(at.timestamp(), 0, 0, 0, units=app.running_units, target=app.target_units)
        decision = decide(signals, rules, Timers())
        if decision.rule != "inside" or decision.bound == "step":  # the policy sees to steps
            return
        row = journal_row(signals, rules, Timers(), decision)
        try:
            self._keep([_record(row, app.endpoint_id, app.revision, at)])
        except Superseded:
            raise
        except Exception:
            log.exception("the new target of %s cannot be written down", app.endpoint_id)

    def find(self, endpoint_id: str, **which: Any) -> Sequence[ScalingDecision]:
        """An endpoint's decisions, oldest first; `which` is as for Registry.find. Raises ValueError as that does."""
        return self._registry.find(ScalingDecision, endpoint_id=endpoint_id, **which)

    def _collect(self) -> None:
        found = self._cluster.read_notes(PREFIX)
        if not found:
            return
        self._keep([decision for key, value in found.items() if (decision := _decision(key, value))])
        self._cluster.drop_notes(found.keys())

    def _keep(self, decisions: Collection[ScalingDecision]) -> None:
        with self._lock:  # else an endpoint could be purged in between
            ids = list({decision.endpoint_id for decision in decisions})
            known = {endpoint.id for endpoint in self._registry.find(Endpoint, id=ids)}
            self._registry.put(*(decision for decision in decisions if decision.endpoint_id in known))


def _decision(key: str, value: bytes) -> ScalingDecision | None:
    """The record of what a policy left; None for what is none, which nobody could use later either.

    The key is modelunit:scaling:ENDPOINT:REVISION:MILLISECONDS; the value is what `journal_row` makes, as JSON.
    """
    try:
        endpoint_id, revision, at_ms = key.removeprefix(PREFIX).split(":")
        at = datetime.fromtimestamp(int(at_ms) / 1000, UTC)
        # Signals may be no numbers (NaN), which JSON has no word for and `decide` takes for 0, as it does null.
        row = json.loads(value, parse_constant=lambda _: None)
        return _record(row, endpoint_id, revision, at)
    except (ValueError, TypeError, OverflowError, OSError) as error:
        log.warning("what was left as a decision about scaling is none (%s)", type(error).__name__)
        return None


def _record(row: Mapping[str, Any], endpoint_id: str, revision: str, at: datetime) -> ScalingDecision:
    """Raises ValueError for what is no row; one of the same moment is the same record."""
    id = f"{endpoint_id}:{revision}:{round(at.timestamp() * 1000)}"
    own = {"id": id, "created_at": at, "endpoint_id": endpoint_id, "revision": revision}
    return ScalingDecision.model_validate({**row, **own})
