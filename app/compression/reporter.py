"""What a compression tells while it runs, and how it hears that it is to stop: files of its job in the object store."""

import contextlib
import time
from collections.abc import Callable

from app.core.job_specs import CompressionProgress, JobProgress
from app.store.layout import JOB_PROGRESS, JOB_STOP, job_object
from app.store.object_store import ObjectStore, StoreError

PROGRESS_PERIOD_S = 1.0
STOP_PERIOD_S = 2.0


class Reporter:
    """Of one process of one job. A store that fails now fails no compression."""

    def __init__(self, store: ObjectStore, job_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._job_id, self._clock = store, job_id, clock
        self._told_at = self._asked_at = float("-inf")
        self._stop = False
        self.last: CompressionProgress | None = None
        """What was heard last."""

    def hear(self, progress: CompressionProgress) -> bool:
        """Layers are done; says whether to stop between them now."""
        self.last = progress
        self._tell(progress.phase, last=progress.layer == progress.layers)
        return self.should_stop()

    def phase(self, phase: str) -> bool:
        """What it does when all layers are done; says whether to stop."""
        self._tell(phase, last=False)
        return self.should_stop()

    def should_stop(self) -> bool:
        """Whether somebody has asked for it; a period late at most."""
        now = self._clock()
        if not self._stop and now >= self._asked_at + STOP_PERIOD_S:
            self._asked_at = now
            with contextlib.suppress(StoreError):  # ObjectMissing is one, and means no
                self._store.read(job_object(self._job_id, JOB_STOP))
                self._stop = True
        return self._stop

    def _tell(self, phase: str, *, last: bool) -> None:
        now = self._clock()
        if not last and now < self._told_at + PROGRESS_PERIOD_S:
            return
        self._told_at = now
        told = JobProgress(phase=phase, compression=self.last)
        done = f" {self.last.layer} of {self.last.layers} layers" if self.last else ""
        print(f"{phase}:{done}", flush=True)
        with contextlib.suppress(StoreError):
            self._store.write(job_object(self._job_id, JOB_PROGRESS), told.model_dump_json().encode())
