"""The logs of jobs: what Ray has of them while it has it, and what was kept of those that have ended."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol

from app.control_plane.services.following import News
from app.core.errors import Unavailable
from app.core.job_logs import JobLog, count_lines, readable
from app.core.jobs import LONG, UNFINISHED, long_task, submission_id
from app.core.records import Job
from app.settings import Settings
from app.store.database import Registry
from app.store.layout import JOBS, job_object
from app.store.object_store import ObjectMissing, ObjectStore
from app.store.objects import open_target

KEPT = "log.txt"

log = logging.getLogger("ray.serve")


class LogPort(Protocol):
    """What is needed of Ray; see app/control_plane/cluster.py."""

    def logs(self, submission_id: str) -> str | None: ...


class JobLogs:
    """Reads jobs' logs, and keeps the last part of each: Ray's own go with its head node. Its methods block."""

    def __init__(self, registry: Registry, store: ObjectStore, cluster: LogPort, settings: Settings):
        self._settings = settings
        self._registry = registry
        self._store = store
        self._cluster = cluster

    def read(self, job: Job) -> JobLog:
        """What there is now. Raises Unavailable while Ray or the store does not answer."""
        with _explained():
            text = None if job.state in UNFINISHED else self._kept(job)
            text = self._from_ray(job) if text is None else text
        return readable(text) if text else JobLog(note=_why_nothing(job, text))

    def keep(self, job: Job) -> None:
        """Save the log of a job that has ended. Whatever fails costs the log only."""
        try:
            if not (text := self._from_ray(job)):
                return
            shown = readable(text)
            lines = [*([shown.note] if shown.note else []), *(line.text for line in shown.lines)]
            self._store.write(job_object(job.id, KEPT), "".join(f"{line}\n" for line in lines).encode())
            if kept_at := _kept_at(job):
                whole = "".join(f"{line.text}\n" for line in readable(text, len(text)).lines)
                open_target(kept_at, self._settings).write(f"{job.id}.log", whole.encode())
        except Exception:
            log.warning("the log of job %s is not kept", job.id, exc_info=True)

    def drop_before(self, moment: datetime, limit: int) -> int:
        """Remove what is kept with jobs that ended before `moment`; returns how many logs those were."""
        old = [
            stored.name
            for stored in self._store.list(JOBS)
            if stored.name.endswith(f"/{KEPT}") and stored.modified_at < moment
        ][:limit]
        for name in old:
            self._store.delete(name)
        return len(old)

    def follower(self, job: Job, search: str = "") -> Callable[[], News]:
        """What gives the lines as text that are new since it was last asked, until the job has ended.

        Whatever does not answer has nothing new.
        """
        seen = 0

        def look() -> News:
            nonlocal seen
            current = self._registry.get(Job, job.id)
            if current is None:
                return News("", last=True)
            text, seen = self._lines_after(seen, current, search)
            return News(text, last=current.state not in UNFINISHED)

        return look

    def _lines_after(self, seen: int, job: Job, search: str) -> tuple[str, int]:
        """The lines after the first `seen`, and how many there are now; one that is not whole waits for its end."""
        try:
            with _explained():
                text = self._from_ray(job)
                if text is None and job.state not in UNFINISHED:
                    text = self._kept(job)
        except Unavailable:
            return "", seen
        if not text:
            return "", seen
        whole = text if job.state not in UNFINISHED else text[: text.rfind("\n") + 1]
        count = count_lines(whole)
        after = seen if count >= seen else 0  # Ray was started anew, and knows the last attempt only
        new = readable(whole, after=after).matching(search)
        return "".join(f"{line.text}\n" for line in new.lines), count

    def _from_ray(self, job: Job) -> str | None:
        """What all attempts wrote, one after the other; None when Ray knows none of them."""
        texts = [self._cluster.logs(submission_id(job, attempt)) for attempt in range(1, job.attempts + 1)]
        if not any(text is not None for text in texts):
            return None
        if len(texts) == 1:
            return texts[0]
        return "".join(f"--- attempt {attempt}{_whole(text)}" for attempt, text in enumerate(texts, 1))

    def _kept(self, job: Job) -> str | None:
        try:
            return self._store.read(job_object(job.id, KEPT)).decode(errors="replace")
        except ObjectMissing:
            return None


def _kept_at(job: Job) -> str | None:
    """Where its log is to be kept for ever."""
    kept = long_task(job).spec.keep_logs if job.type in LONG else None
    return kept.uri if kept else None


def _whole(text: str | None) -> str:
    """What stands below an attempt's heading, so that the next one begins on a line of its own."""
    if text is None:
        return ": Ray no longer has what it wrote\n"
    return f"\n{text}\n" if text and not text.endswith("\n") else f"\n{text}"


def _why_nothing(job: Job, text: str | None) -> str:
    if not job.attempts:
        return "It waits for its turn." if job.state in UNFINISHED else "It ended before it began."
    if text is not None:
        return "It has not written anything."
    return "Ray no longer has this job's log, and none was kept."


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except Exception:
        log.warning("a job's log cannot be read", exc_info=True)
        raise Unavailable("The log cannot be read now; try again.") from None
