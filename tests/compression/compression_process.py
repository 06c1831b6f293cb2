"""A compression in a process of its own, to be killed: python -m tests.compression.compression_process FOLDER PRECISION

Prints each layer as it is done.
"""

import sys
from pathlib import Path

import torch

from app.compression.quantizing import quantize
from app.core.job_specs import CompressionProgress
from tests.compression.small_models import random_samples, recipe_for

SAMPLES = 12


def tell(progress: CompressionProgress) -> bool:
    print(progress.layer, flush=True)
    return False


def main() -> None:
    torch.set_num_threads(1)
    folder, precision = Path(sys.argv[1]), sys.argv[2]
    recipe = recipe_for(folder / "base", precision, SAMPLES)
    samples = random_samples(SAMPLES) if recipe.needs_calibration else []
    quantize(folder / "base", folder / "new", recipe, samples, tell)


if __name__ == "__main__":
    main()
