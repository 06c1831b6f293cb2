"""What a training tells while it runs, and how it hears that it is to stop: files of its job in the object store."""

import contextlib
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Protocol

from app.core.curves import Curve, Point
from app.core.job_specs import TRAINING, JobProgress, TrainingProgress
from app.settings import Settings
from app.store.layout import JOB_CURVE, JOB_PROGRESS, JOB_STOP, job_object
from app.store.object_store import ObjectStore, StoreError
from app.store.objects import open_store

PROGRESS_PERIOD_S = 1.0
CURVE_PERIOD_S = 10.0
STOP_PERIOD_S = 2.0
RECENT = 50
"""Iterations by which the usual time of one is told."""


class Told(Protocol):
    """What is known of one iteration."""

    @property
    def iteration(self) -> int: ...
    @property
    def iterations(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def elapsed_s(self) -> float: ...
    @property
    def tokens(self) -> int: ...
    @property
    def cards(self) -> int: ...
    @property
    def validation_loss(self) -> float | None: ...


class Reporter:
    """Of one process of one job, the only one that writes these files. A store that fails now fails no training.

    Can be pickled as long as it has not heard of anything.
    """

    def __init__(self, settings: Settings, job_id: str, clock: Callable[[], float] = time.monotonic):
        self._settings = settings
        self._job_id = job_id
        self._clock = clock
        self._opened: ObjectStore | None = None
        self._curve = Curve()
        self._recent: deque[Told] = deque(maxlen=RECENT)
        self._validation_loss: float | None = None
        self._begun_at = 0.0
        """When it began to train, had attempts before not been there: they count too."""
        self._told_at = self._curve_at = self._asked_at = float("-inf")
        self._stop = False

    def hear(self, told: Told) -> bool:
        """An iteration is done; says whether to stop at a checkpoint now."""
        now = self._clock()
        if not self._recent:
            self._take_over(told, now)
        self._recent.append(told)
        if told.validation_loss is not None:
            self._validation_loss = told.validation_loss
        elapsed_s = sum(one.elapsed_s for one in self._recent)
        tokens_per_s = sum(one.tokens for one in self._recent) / elapsed_s if elapsed_s else None
        self._curve = self._curve.add(
            Point(
                iteration=told.iteration,
                loss=told.loss,
                learning_rate=told.learning_rate,
                tokens_per_s=tokens_per_s,
                validation_loss=told.validation_loss,
            )
        )
        progress = TrainingProgress(
            iteration=told.iteration,
            iterations=told.iterations,
            loss=told.loss,
            learning_rate=told.learning_rate,
            validation_loss=self._validation_loss,
            s_per_iteration=median(one.elapsed_s for one in self._recent),
            tokens_per_s=tokens_per_s,
            tokens_per_s_per_card=tokens_per_s / told.cards if tokens_per_s else None,
            tokens_per_iteration=sum(one.tokens for one in self._recent) / len(self._recent),
            iterated_s=now - self._begun_at,
        )
        stop = self.should_stop()
        last = stop or told.iteration == told.iterations
        if last or now >= self._told_at + PROGRESS_PERIOD_S:
            self._told_at = now
            self._write(JOB_PROGRESS, JobProgress(phase=TRAINING, training=progress))
        if last or now >= self._curve_at + CURVE_PERIOD_S:
            self._curve_at = now
            self._write(JOB_CURVE, self._curve)
        return stop

    def should_stop(self) -> bool:
        """Whether it is to stop at a checkpoint, as soon as it can."""
        now = self._clock()
        if not self._stop and now >= self._asked_at + STOP_PERIOD_S:
            self._asked_at = now
            with contextlib.suppress(StoreError):  # ObjectMissing is one, and means no
                self._stop = bool(self._read(JOB_STOP))
        return self._stop

    @property
    def last(self) -> TrainingProgress | None:
        """What was told last, by whatever process."""
        with contextlib.suppress(ValueError, StoreError):
            return JobProgress.model_validate_json(self._read(JOB_PROGRESS)).training
        return None

    def _take_over(self, first: Told, now: float) -> None:
        """Go on where an attempt before ended; what it did after its last checkpoint is done again."""
        before = self.last
        self._begun_at = now - first.elapsed_s - (before.iterated_s if before else 0.0)
        with contextlib.suppress(ValueError, StoreError):
            self._curve = Curve.model_validate_json(self._read(JOB_CURVE)).until(first.iteration - 1)

    @property
    def _store(self) -> ObjectStore:
        if self._opened is None:
            self._opened = open_store(self._settings)
        return self._opened

    def _read(self, name: str) -> bytes:
        return self._store.read(job_object(self._job_id, name))

    def _write(self, name: str, content: JobProgress | Curve) -> None:
        with contextlib.suppress(StoreError):
            self._store.write(job_object(self._job_id, name), content.model_dump_json().encode())
