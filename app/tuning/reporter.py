"""What a training tells while it runs, and how it hears that it is to stop: files of its job in the object store."""

import contextlib
import time
from collections.abc import Callable

from app.core.curves import Curve, Point
from app.core.job_specs import TRAINING, JobProgress, TrainingProgress
from app.store.layout import job_object
from app.store.object_store import ObjectStore, StoreError

PROGRESS = "progress.json"
CURVE = "curve.json"
STOP = "stop.json"
PROGRESS_PERIOD_S = 1.0
CURVE_PERIOD_S = 10.0
STOP_PERIOD_S = 2.0


class Reporter:
    """Of one process of one job, the only one that writes these files. A store that fails now fails no training."""

    def __init__(self, store: ObjectStore, job_id: str, clock: Callable[[], float] = time.monotonic):
        self._store = store
        self._job_id = job_id
        self._clock = clock
        self._curve = Curve()
        self._iterated_s = 0.0
        self._begun_at = clock()
        self._told_at = self._curve_at = self._asked_at = float("-inf")
        self._stop = False

    def begin(self, checkpoint: int) -> None:
        """The first iteration after a checkpoint (0: none) is about to begin. What attempts before told goes on."""
        with contextlib.suppress(ValueError, StoreError):
            before = JobProgress.model_validate_json(self._read(PROGRESS)).training
            self._iterated_s = before.iterated_s if before else 0.0
        with contextlib.suppress(ValueError, StoreError):
            self._curve = Curve.model_validate_json(self._read(CURVE)).until(checkpoint)
        self._begun_at = self._clock()

    def tell(self, progress: TrainingProgress, point: Point | None = None, *, last: bool = False) -> None:
        """How far it is, after each iteration and around a checkpoint; written once a second, or when it is the last.

        `iterated_s` is set here.
        """
        now = self._clock()
        if point is not None:
            self._curve = self._curve.add(point)
        if last or now >= self._told_at + PROGRESS_PERIOD_S:
            self._told_at = now
            told = progress.model_copy(update={"iterated_s": self._iterated_s + now - self._begun_at})
            self._write(PROGRESS, JobProgress(phase=TRAINING, training=told).model_dump_json().encode())
        if last or now >= self._curve_at + CURVE_PERIOD_S:
            self._curve_at = now
            self._write(CURVE, self._curve.model_dump_json().encode())

    def should_stop(self) -> bool:
        """Whether it is to stop at a checkpoint, as soon as it can."""
        now = self._clock()
        if not self._stop and now >= self._asked_at + STOP_PERIOD_S:
            self._asked_at = now
            with contextlib.suppress(StoreError):  # ObjectMissing is one, and means no
                self._stop = bool(self._read(STOP))
        return self._stop

    def _read(self, name: str) -> bytes:
        return self._store.read(job_object(self._job_id, name))

    def _write(self, name: str, data: bytes) -> None:
        with contextlib.suppress(StoreError):
            self._store.write(job_object(self._job_id, name), data)
