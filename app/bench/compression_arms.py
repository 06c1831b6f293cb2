"""A compression by our job's code and by llm-compressor's `oneshot`, with the same model, recipe and samples.

`python -m app.bench.compression_arms SIDE MODEL PRECISION OUTPUT` prints its peak of memory and what was foretold.
"""

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from app.compression.calibration import calibration_samples
from app.compression.quantizing import quantize
from app.compression.shipped import shipped_conversations
from app.core.compression_plan import Plan, plan
from app.core.compression_spec import CompressionWish
from app.core.specs import CPU_SMALL
from app.store.local_folder import LocalFolder
from app.tuning.data.tokenizer import load_tokenizer
from app.weights.stored_shapes import read_stored

SAMPLES, LENGTH = 32, 256
Samples = list[list[int]]


def ours(model: Path, output: Path, planned: Plan, samples: Samples) -> None:
    """As jobs do it, down to the files that an engine reads."""
    quantize(model, output, planned.recipe, samples, lambda _: False)
    for path in model.iterdir():
        if path.is_file() and not (output / path.name).exists() and path.suffix != ".safetensors":
            shutil.copyfile(path, output / path.name)


def oneshot(model: Path, output: Path, planned: Plan, samples: Samples) -> None:
    """As its documentation says."""
    import torch  # noqa: PLC0415 (seconds, which are the other side's too)
    from llmcompressor import oneshot as run  # noqa: PLC0415
    from llmcompressor.pipelines.cache import IntermediatesCache  # noqa: PLC0415
    from torch.utils.data import DataLoader  # noqa: PLC0415

    from app.compression.modifiers import modifiers  # noqa: PLC0415

    if not torch.accelerator.is_available():  # there is no memory to pin, and it would fail in trying
        IntermediatesCache.pin_memory = lambda cache, number, names=None: None
    rows = [{"input_ids": torch.tensor([sample])} for sample in samples]
    run(
        model=str(model),
        recipe=modifiers(planned.recipe),
        dataset=DataLoader(rows, batch_size=None),
        pipeline="sequential",
        output_dir=str(output),
    )


SIDES: dict[str, Callable[[Path, Path, Plan, Samples], None]] = {"ours": ours, "oneshot": oneshot}


def main() -> None:
    """Run one side."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    side, model, precision, output = sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    wish = CompressionWish.model_validate(
        {"precision": precision, "calibration_samples": SAMPLES, "calibration_length": LENGTH}
    )
    stored = read_stored(LocalFolder(model))
    assert stored is not None
    planned = plan(wish, stored, (CPU_SMALL,))
    samples = calibration_samples(shipped_conversations(), load_tokenizer(model), SAMPLES, LENGTH)
    SIDES[side](model, output, planned, samples)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak_bytes": peak_bytes, "predicted_bytes": planned.quantizing_bytes}))


if __name__ == "__main__":
    main()
