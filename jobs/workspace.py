"""What every job process shares: its task, its progress file, its outcome, a folder to work in."""

import argparse
import contextlib
import fcntl
import hashlib
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from app.core.errors import PlatformError, Unavailable, without_paths
from app.core.findings import Finding, finding
from app.core.job_specs import (
    TASK,
    AnyTask,
    JobOutcome,
    JobProgress,
    MachineMemory,
    QuantizeTask,
    TrainingProgress,
    TuneTask,
)
from app.core.specs import DEFAULT_MACHINE_TYPE, MACHINE_TYPES, MachineType
from app.core.tuning_spec import Target
from app.settings import Settings
from app.store.folder_use import in_use, is_in_use
from app.store.layout import JOB_PROGRESS, Manifest, find_manifests, job_object
from app.store.object_store import ObjectMissing, ObjectStore, StoreError
from app.store.objects import open_store, open_target

PROGRESS_PERIOD_S = 1.0
SCRATCH_KEPT_S = 24 * 3600.0
"""What a job that never came to its end has left on a node is there for its next attempt, but not for ever."""

RIVAL_S = 30
"""How long a process waits for another one of its job to end."""

log = logging.getLogger("jobs")


@dataclass
class Workspace:
    """One run of a job."""

    settings: Settings
    store: ObjectStore
    task: AnyTask
    _told_at: float = field(default=-PROGRESS_PERIOD_S)
    _phase: str = field(default="")
    _trained: TrainingProgress | None = field(default=None)
    """What an attempt before told of its training."""

    def __post_init__(self) -> None:
        if isinstance(self.task, TuneTask):
            with contextlib.suppress(StoreError, ValueError):
                told = self.store.read(job_object(self.task.job_id, JOB_PROGRESS))
                self._trained = JobProgress.model_validate_json(told).training

    @property
    def scratch(self) -> Path:
        """A private folder on this node, kept over attempts and removed at the end."""
        folder = self.settings.home / "tmp" / self.task.job_id
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    @property
    def machines(self) -> tuple[MachineMemory, ...]:
        """What the weights should fit into: the machine types' memory or, where that is not known, this node's."""
        return self.task.machines or (MachineMemory(name="this node", memory_bytes=psutil.virtual_memory().total),)

    def progress(self, phase: str, done_bytes: int = 0, total_bytes: int = 0) -> None:
        """Tell how far it is: each phase at once, and what is done of it at most once per period.

        A store that fails now does not fail the job.
        """
        if phase == self._phase and time.monotonic() - self._told_at < PROGRESS_PERIOD_S:
            return
        self._told_at, self._phase = time.monotonic(), phase
        told = JobProgress(phase=phase, done_bytes=done_bytes, total_bytes=total_bytes, training=self._trained)
        print(f"{phase}: {done_bytes >> 20} of {total_bytes >> 20} MiB" if total_bytes else phase, flush=True)
        with contextlib.suppress(StoreError):
            self.store.write(job_object(self.task.job_id, JOB_PROGRESS), told.model_dump_json().encode())

    def finish(self, outcome: JobOutcome) -> None:
        """Write how it ended: the last thing a job does."""
        if not (outcome.stopped and isinstance(self.task, QuantizeTask)):  # whose layers lie nowhere else
            shutil.rmtree(self.settings.home / "tmp" / self.task.job_id, ignore_errors=True)
        # First, for the log is kept as soon as the outcome is there.
        told = outcome.model_dump(mode="json", exclude_defaults=True, exclude={"sample"})  # which may repeat data
        print(json.dumps(told, ensure_ascii=False), flush=True)
        self.store.write(job_object(self.task.job_id, "outcome.json"), outcome.model_dump_json().encode())

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Work in `scratch` as the only process of this job on this node, and keep it from being swept up meanwhile.

        One that an attempt before has left behind is about to end, as Ray sees to it. Raises Unavailable if not.
        """
        with in_use(self.scratch), (self.scratch / ".running").open("w") as mark:
            for left in reversed(range(RIVAL_S)):
                try:
                    fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not left:
                        raise Unavailable("Another process of this job works on this machine.") from None
                    time.sleep(1)
            yield


def sweep_scratch(settings: Settings) -> None:
    """Remove the folders of jobs that nobody uses and nobody has written to for long."""
    for folder in (settings.home / "tmp").glob("job-*"):
        with contextlib.suppress(OSError):  # another job does the same, or its own is about to begin again
            touched_at = max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
            if touched_at < time.time() - SCRATCH_KEPT_S and not is_in_use(folder):
                shutil.rmtree(folder)


def failed(wrong: Finding) -> JobOutcome:
    """The outcome of a job that found just this."""
    return JobOutcome(ok=False, reason=wrong.message, findings=(wrong,))


def failed_so(wrong: Finding) -> JobOutcome:
    """The same, and its reason alone says what was found and what to do."""
    told = (wrong.message, f"{wrong.found.rstrip('.')}." if wrong.found else "", wrong.fix)
    return failed(wrong).model_copy(update={"reason": " ".join(part for part in told if part)})


def output_problem(workspace: Workspace, output: Target | None, *, overwrite: bool) -> Finding | None:
    """Why the folder that people named cannot be written to; asked once, for then our own files are there."""
    if output is None:
        return None
    mark = job_object(workspace.task.job_id, "output-checked")
    if next(workspace.store.list(mark), None) is not None:
        return None
    try:
        there = next(open_target(output.uri, workspace.settings).list(""), None)
    except StoreError as refused:
        fix = "Name a folder that the platform can write to, with no link on the way to it."
        return finding("output_unusable", fix, found=without_paths(str(refused)))
    if there is not None and not overwrite:
        return finding("output_not_empty", "Empty it, or say overwrite: true.", file=there.name)
    workspace.store.write(mark, b"")
    return None


def copy_published(manifest: Manifest, base: Path, output: Path, wanted: Callable[[str], bool]) -> None:
    """Those files of a fetched version that are wanted, as they were published.

    What else has come to lie there since, links too, is none of the model. Raises StoreError for one that changed.
    """
    for file in manifest.files:
        if not wanted(file.name):
            continue
        path = output / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(base / file.name, path)
        if hashlib.sha256(path.read_bytes()).hexdigest() != file.sha256:
            raise StoreError(f"{file.name} is not what the manifest says")


def named_base(store: ObjectStore, model: str) -> Manifest:
    """The unquantized version of a model, by its ID or name. Raises ValueError."""
    versions = [manifest for manifest in find_manifests(store) if manifest.precision == "BF16"]
    base = next((one for one in versions if model in (one.model_id, one.name)), None)
    if base is None:
        raise ValueError("model names no unquantized model in the object store")
    return base


def named_machine(machine_type: str | None) -> MachineType:
    """Of those that there are without a serve config. Raises ValueError."""
    machine = MACHINE_TYPES.get(machine_type or DEFAULT_MACHINE_TYPE)
    if machine is None:
        raise ValueError(f"machine_type is unknown here; allowed: {', '.join(sorted(MACHINE_TYPES))}")
    return machine


def job_id_of(text: bytes) -> str:
    """Of a job that somebody runs by a file of their own: the same file again goes on where it was."""
    return f"job-{hashlib.sha256(text).hexdigest()[:20]}"


def read_task(text: bytes, settings: Settings, store: ObjectStore) -> AnyTask:
    """The task as the control plane has written it. Raises ValueError."""
    return TASK.validate_json(text)


def main(
    work: Callable[[Workspace], JobOutcome], read: Callable[[bytes, Settings, ObjectStore], AnyTask] = read_task
) -> None:
    """Run `work` on the task that `--spec` names: a file, or an object of the platform's store; `read` parses it.

    Exits 0 when the job came to a verdict, whatever it is, and 1 when it could not: then it may be run again.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s")
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--spec", required=True, help="a JSON file, or the name of an object in the platform's store")
    named = parser.parse_args().spec
    settings = Settings.from_environ()
    store = open_store(settings)
    try:
        task = read(Path(named).read_bytes() if Path(named).is_file() else store.read(named), settings, store)
    except (ObjectMissing, ValueError) as error:
        sys.exit(f"--spec {named}: {error}")
    sweep_scratch(settings)
    workspace = Workspace(settings, store, task)
    with _reported(), workspace.alone():
        workspace.finish(work(workspace))


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except (PlatformError, OSError, ValueError) as error:
        log.exception("the job could not go on")
        sys.exit(without_paths(str(error)))
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on where this one was")
