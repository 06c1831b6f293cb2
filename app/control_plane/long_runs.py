"""The jobs that train or compress, while they wait and run: which begin, which leave for an endpoint, stop or hang."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from app.control_plane.services.jobs import Jobs
from app.control_plane.services.machines import Machines
from app.core.compression_watch import compression_over_reason, feel_layers, layers_hang_reason
from app.core.job_queue import RANK, JobQueue, Place, leaves, same_kind
from app.core.job_specs import TRAINING, WAITING_FOR_MACHINES, JobProgress
from app.core.jobs import has_process, quantize_task, tune_task
from app.core.records import Endpoint, Job
from app.core.slots import machine_resources
from app.core.specs import MachineType
from app.core.tuning_watch import Pulse, auto_stop_reason, feel, hang_reason
from app.core.waiting import Room, lacks_room, shortage
from app.store.database import Registry

LOOK_EVERY_S = 2.0
"""How often jobs are looked at whose records do not change: each look asks Ray and the object store."""
SETTLED_S = 5.0
"""How old what the cluster tells of its nodes may be."""
STOP_TIMEOUT = timedelta(minutes=10)
"""How long one that is asked to stop may take to its checkpoint, or layer; then it is ended, and the one before counts.
"""


class LongRuns:
    """One round is `begin`, then the jobs in the order that it gives; the job runner does the rest."""

    def __init__(
        self,
        registry: Registry,
        jobs: Jobs,
        machines: Machines,
        reserve: Mapping[str, float],
        lock: threading.RLock,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ):
        """`reserve`: by Ray's names, what jobs leave free for endpoints."""
        self._registry = registry
        self._jobs = jobs
        self._machines = machines
        self._reserve = reserve
        self._lock = lock
        self._clock = clock
        self._now = now
        self._queue = JobQueue(None)
        self._pulses: dict[str, Pulse] = {}
        self._states: Mapping[str, str] = {}
        """Of the last round's jobs."""
        self._look_at = clock()
        self._holds_since: dict[str, float] = {}
        """Since when jobs have the machines that they need."""
        self._told: set[str] = set()
        """Those that are to stop, and know it."""

    def begin(self, jobs: Sequence[Job]) -> list[Job]:
        """Begin a round with all such jobs that are unfinished; returns them in order, or none while nothing is due."""
        if not jobs:
            return []
        states = {job.id: job.state for job in jobs}
        if states == self._states and self._clock() < self._look_at:
            return []
        self._states, self._look_at = states, self._clock() + LOOK_EVERY_S
        self._pulses = {job_id: pulse for job_id, pulse in self._pulses.items() if job_id in states}
        self._holds_since = {job_id: at for job_id, at in self._holds_since.items() if job_id in states}
        self._told = {job_id for job_id in self._told if states.get(job_id) == "stopping"}
        places = {job.id: _place(job) for job in jobs}
        self._machines.look()
        short = self._short()
        self._give_way(jobs, places, short)
        claimed = [
            places[job.id] for job in jobs if has_process(job) and job.state != "stopping" and not self._holds(job)
        ]
        self._queue = JobQueue(self._machines.rooms, self._reserve, claimed, short)
        return sorted(jobs, key=lambda job: (places[job.id].rank, job.created_at, job.id))

    def held(self, job: Job) -> str:
        """Why its process cannot begin now; empty: it can."""
        return self._queue.held(_place(job))

    def watch(self, job: Job, progress: JobProgress) -> str:
        """What is to be said of one that runs. Has it stop when its time is over."""
        if job.type == "quantize":
            return self._watch_compression(job, progress)
        trained = progress.training
        if trained is None or progress.phase != TRAINING:
            self._pulses.pop(job.id, None)
            self._holds_since.pop(job.id, None)
            return progress.phase
        if reason := auto_stop_reason(tune_task(job).spec.auto_stop_s, trained, job.run.trained_before_s):
            self._ask(job, "auto_stop", reason)
        now_s = self._clock()
        self._holds_since.setdefault(job.id, now_s)
        pulse = self._pulses[job.id] = feel(self._pulses.get(job.id), trained, now_s)
        return hang_reason(pulse, trained, now_s)

    def _watch_compression(self, job: Job, progress: JobProgress) -> str:
        """Ray begins its process where its machine is free, so it has that from then on."""
        now_s = self._clock()
        self._holds_since.setdefault(job.id, now_s)
        if reason := compression_over_reason(quantize_task(job).spec.auto_stop_s, job.started_at, self._now()):
            self._ask(job, "auto_stop", reason)
        told = progress.compression
        if told is None:
            self._pulses.pop(job.id, None)
            return progress.phase
        pulse = self._pulses[job.id] = feel_layers(self._pulses.get(job.id), told, now_s)
        return layers_hang_reason(pulse, told, now_s) or told.phase

    def is_to_be_ended(self, job: Job, progress: JobProgress) -> bool:
        """Whether one that is to stop, which is told so here, has had its time, or can do nothing with it."""
        if progress.phase == WAITING_FOR_MACHINES:  # where it hears nothing
            return True
        if job.id not in self._told:
            self._jobs.tell_to_stop(job)
            self._told.add(job.id)
        asked_at = job.run.stop_asked_at
        return asked_at is None or self._now() >= asked_at + STOP_TIMEOUT

    def _holds(self, job: Job) -> bool:
        """Whether it has its machines for long enough that what is told to be free is free without them."""
        since_s = self._holds_since.get(job.id)
        return since_s is not None and self._clock() >= since_s + SETTLED_S

    def _short(self) -> dict[str, MachineType]:
        """The endpoints that wait for room, and would find it if no job ran."""
        waiting = [one for one in self._registry.find(Endpoint, deleted_at=None) if lacks_room(one.reason)]
        found = {one.id: self._machines.find(one.machine_type) for one in waiting}
        known = {key: machine for key, machine in found.items() if machine is not None}
        if self._machines.rooms is None:
            return known
        empty = [Room(room.total, room.total, room.labels) for room in self._machines.rooms]
        return {key: machine for key, machine in known.items() if not shortage(machine_resources(machine), empty)}

    def _give_way(self, jobs: Sequence[Job], places: Mapping[str, Place], short: Mapping[str, MachineType]) -> None:
        """Ask one job to leave for the endpoints of each kind of machine that wait, and wait until it has left."""
        leaving = [places[job.id].machine for job in jobs if job.state == "stopping" and has_process(job)]
        still = {key: one for key, one in short.items() if not any(same_kind(one, other) for other in leaving)}
        running = {job.id: job for job in jobs if job.state == "running"}
        if found := leaves(still, [places[job_id] for job_id in running]):
            # Not to which: it may be another workspace's.
            self._ask(running[found.job_id], "preemption", "its place goes to an endpoint that finds no room")

    def _ask(self, job: Job, stop_for: Any, reason: str) -> None:
        with self._lock:
            current = self._registry.get(Job, job.id)
            if current is not None and current.state == "running":
                self._jobs.ask_to_stop(current, stop_for, reason)


def _place(job: Job) -> Place:
    if job.type == "quantize":
        return Place(job.id, quantize_task(job).machine, 1)
    task = tune_task(job)
    spec = task.spec
    place = Place(job.id, task.machine, spec.instances, RANK[spec.priority], spec.preemptible, job.workspace)
    return replace(place, instances=1) if task.finish else place
