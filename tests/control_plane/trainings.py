"""Fine-tuning jobs whose processes are played."""

from typing import Any

from app.control_plane.platform import Platform
from app.core.curves import Curve, Point
from app.core.job_specs import TRAINING, JobOutcome, JobProgress, TrainingProgress, output_model_id
from app.core.records import DEFAULT_WORKSPACE, Job
from app.core.tuning_spec import TuningSpec
from app.core.waiting import Room
from app.store.layout import HELD_MANIFEST, JOB_CURVE, JOB_PROGRESS, Manifest, job_object, put_folder, write_manifest
from app.store.objects import open_store
from tests.control_plane.platforms import FakeCluster, until

BASE = "m-base"
BASE_MODEL = "SmolLM2-135M-Instruct"
BODY: dict[str, Any] = {
    "type": "finetune", "name": "facts", "model": BASE, "output_model_name": "taught",
    "dataset": {"uri": "file:///data/facts.jsonl"}, "machine_type": "cpu-small",
}  # fmt: skip


def rooms(cpus: float) -> list[Room]:
    """A cluster of one node, of which so much is free."""
    return [Room({"CPU": 8.0}, {"CPU": cpus})]


def add_base(platform: Platform, model_id: str = BASE, precision: Any = "BF16", base_model: str = BASE_MODEL) -> None:
    """A model that can be tuned, as far as the catalogue and its precision allow."""
    folder = platform.settings.home / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    store = open_store(platform.settings)
    write_manifest(
        store,
        put_folder(store, folder, model_id=model_id, name=model_id, base_model=base_model, precision=precision),
    )
    platform.models.adopt()


def wish(**fields: Any) -> TuningSpec:
    return TuningSpec.model_validate(BODY | fields, strict=False)


def tune(platform: Platform, **fields: Any) -> Job:
    return platform.tuning.create(DEFAULT_WORKSPACE, wish(**fields))


class Training:
    """The process of a job, as far as the control plane sees it."""

    def __init__(self, platform: Platform, cluster: FakeCluster, job: Job):
        self.platform, self.cluster, self.id = platform, cluster, job.id
        self.store = open_store(platform.settings)

    @property
    def job(self) -> Job:
        return self.platform.jobs.get(DEFAULT_WORKSPACE, self.id)

    def becomes(self, state: str) -> Job:
        return until(lambda: self.job if self.job.state == state else None)

    def tells(self, iteration: int, **fields: Any) -> None:
        told = TrainingProgress(iteration=iteration, iterations=100, s_per_iteration=2.0, **fields)
        progress = JobProgress(phase=TRAINING, training=told)
        self.store.write(job_object(self.id, JOB_PROGRESS), progress.model_dump_json().encode())
        curve = Curve().add(Point(iteration=iteration, loss=1.5, learning_rate=2e-5))
        self.store.write(job_object(self.id, JOB_CURVE), curve.model_dump_json().encode())

    def writes_checkpoint(self, iteration: int) -> None:
        self.store.write(job_object(self.id, f"checkpoints/{iteration:07}/manifest.json"), b"{}")

    def is_told_to_stop(self) -> bool:
        return next(self.store.list(job_object(self.id, "stop.json")), None) is not None

    def stops(self) -> None:
        self._ends(JobOutcome(ok=False, stopped=True, reason="it stopped at a checkpoint"))

    def fails(self, reason: str) -> None:
        self._ends(JobOutcome(ok=False, reason=reason))

    def publishes(self, *, held: bool = False) -> Manifest:
        """All files, and the manifest, or that with the job."""
        folder = self.platform.settings.home / "result"
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(self.id.encode())
        manifest = put_folder(
            self.store, folder, model_id=output_model_id(self.id), name="taught", base_model=BASE_MODEL,
            precision="BF16",
        )  # fmt: skip
        self.store.write(job_object(self.id, HELD_MANIFEST), manifest.model_dump_json().encode())
        if not held:
            write_manifest(self.store, manifest)
        return manifest

    def completes(self, *, held: bool = False) -> Manifest:
        manifest = self.publishes(held=held)
        metrics = {"loss": 0.5, "tokens_per_s_per_card": 900.0}
        self._ends(JobOutcome(ok=True, digest=manifest.digest, metrics=metrics, sample="Belmarisk."))
        return manifest

    def _ends(self, outcome: JobOutcome) -> None:
        self.store.write(job_object(self.id, "outcome.json"), outcome.model_dump_json().encode())
