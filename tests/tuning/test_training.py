"""One attempt at a training, where no worker is needed."""

from pathlib import Path
from typing import cast

from app.core.specs import CPU_SMALL
from app.settings import Settings
from app.store.file_store import FileStore
from app.tuning.data.sample_file import SampleFile
from app.tuning.reporter import Reporter
from app.tuning.run import Run
from app.tuning.training import train
from tests.tuning.tiny_models import RandomSamples, plan_of, write_tiny


def test_a_model_that_can_give_no_sample_is_not_lost(tmp_path: Path) -> None:
    base = write_tiny(tmp_path / "base")  # which has no tokenizer
    folders = {name: tmp_path / name for name in ("output", "adapter", "tensorboard")}
    run = Run(
        plan=plan_of(iterations=0), base=base, samples=cast(SampleFile, RandomSamples(4)), **folders,
        store=FileStore(tmp_path / "store"), checkpoints="jobs/job-1/checkpoints/", machine=CPU_SMALL,
        instances=1, finish=False,
    )  # fmt: skip
    trained = train(run, Reporter(Settings(home=tmp_path), "job-1"), lambda: ())
    assert (trained.stopped, trained.sample) == (False, "")
    assert (run.output / "model.safetensors").exists()
