"""Compression jobs whose processes are played."""

import json
from typing import Any

from app.control_plane.platform import Platform
from app.core.compression_spec import QuantizeSpec
from app.core.findings import Facts
from app.core.job_specs import CompressionProgress, JobOutcome, JobProgress
from app.core.jobs import quantize_task
from app.core.quality import Probe, QualityCard
from app.core.recipe import Recipe
from app.core.records import DEFAULT_WORKSPACE, Job, Version
from app.store.layout import JOB_PROGRESS, Manifest, job_object, put_folder, write_manifest
from app.store.objects import open_store
from tests.control_plane.platforms import FakeCluster, until
from tests.control_plane.trainings import BASE
from tests.weights.safetensors_files import write_tensors

INT8 = "SmoothQuant-W8A8"
BODY: dict[str, Any] = {
    "type": "quantize", "name": "smaller", "model": BASE, "precision": INT8, "machine_type": "cpu-small",
}  # fmt: skip
CARD = QualityCard(
    perplexity_before=10.0, perplexity_after=10.2, kl_mean=0.01, kl_p99=0.2, greedy_agreement=0.97, greedy_tokens=512,
    probes=(Probe(name="copying", before=9, after=8, of=10),), size_before_bytes=270 << 20, size_after_bytes=160 << 20,
    load_s_before=1.0, load_s_after=0.8, tokens_per_s_before=200.0, tokens_per_s_after=240.0, concurrency=8,
    where="2 cores", held_out_tokens=4096, held_out_sha256="0" * 64, measured_with={"torch": "2"},
)  # fmt: skip
RECIPE = Recipe(
    precision=INT8, migration_strength=0.5, scaled_by="channel", keep=("lm_head",), calibration_samples=128,
    calibration_length=512, origins={"keep": "the head"},
)  # fmt: skip
WORSE = "perplexity rose by 40.0 %; at most 5.0 % is let pass"


def wish(**fields: Any) -> QuantizeSpec:
    return QuantizeSpec.model_validate_json(json.dumps(BODY | fields))


def compress(platform: Platform, **fields: Any) -> Job:
    return platform.compression.create(DEFAULT_WORKSPACE, wish(**fields))


def add_shaped_base(platform: Platform, width: int = 576, model_id: str = "m-shaped", base: str = "Tiny-Llama") -> None:
    """A model whose headers tell of one layer of this width; its tensors are zeros."""
    folder = platform.settings.home / model_id
    folder.mkdir(parents=True)
    config = {"hidden_size": width, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": width}
    (folder / "config.json").write_text(json.dumps(config))
    linear = ("BF16", [width, width])
    layers = {f"model.layers.0.{part}.weight": linear for part in ("self_attn.q_proj", "self_attn.o_proj")}
    write_tensors(folder / "model.safetensors", layers | {"model.embed_tokens.weight": ("BF16", [32, width])})
    store = open_store(platform.settings)
    manifest = put_folder(store, folder, model_id=model_id, name=model_id, base_model=base, precision="BF16")
    write_manifest(store, manifest)
    platform.models.adopt()


class Compressing:
    """The process of a job, as far as the control plane sees it."""

    def __init__(self, platform: Platform, cluster: FakeCluster, job: Job):
        self.platform, self.cluster, self.id = platform, cluster, job.id
        self.store = open_store(platform.settings)

    @property
    def job(self) -> Job:
        return self.platform.jobs.get(DEFAULT_WORKSPACE, self.id)

    @property
    def version(self) -> Version:
        task = quantize_task(self.job)
        found = self.platform.registry.get(Version, f"{task.output_model_id}:{task.precision}")
        assert found is not None
        return found

    def becomes(self, state: str) -> Job:
        return until(lambda: self.job if self.job.state == state else None)

    def tells(self, layer: int, phase: str = "quantizing") -> None:
        told = CompressionProgress(layer=layer, layers=30, phase=phase, s_per_layer=2.0)
        progress = JobProgress(phase=phase, compression=told)
        self.store.write(job_object(self.id, JOB_PROGRESS), progress.model_dump_json().encode())

    def is_told_to_stop(self) -> bool:
        return next(self.store.list(job_object(self.id, "stop.json")), None) is not None

    def stops(self) -> None:
        self._ends(JobOutcome(ok=False, stopped=True, reason="it stopped after layer 12 of 30"))

    def fails(self, reason: str) -> None:
        self._ends(JobOutcome(ok=False, reason=reason))

    def publishes(self) -> Manifest:
        folder = self.platform.settings.home / "compressed"
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(self.id.encode())
        task = quantize_task(self.job)
        manifest = put_folder(
            self.store, folder, model_id=task.output_model_id, name="smaller", base_model=task.base_model,
            precision=task.precision,
        )  # fmt: skip
        write_manifest(self.store, manifest)
        return manifest

    def completes(self, *failures: str, weights_bytes: int = 150 << 20) -> Manifest:
        manifest = self.publishes()
        facts = Facts(weights_bytes=weights_bytes, scaled_by="channel", chat_template=True)
        self._ends(
            JobOutcome(
                ok=True, digest=manifest.digest, facts=facts, metrics={"layers": 30.0}, quality=CARD, recipe=RECIPE,
                quality_failures=failures,
            )
        )  # fmt: skip
        return manifest

    def _ends(self, outcome: JobOutcome) -> None:
        self.store.write(job_object(self.id, "outcome.json"), outcome.model_dump_json().encode())
