"""How long a warm validator takes for a folder of the shape of a 70B model, and how much it reads."""

import tempfile
import time
from pathlib import Path

from app.bench.big_folder import write_sparse_llama_70b
from app.catalog.catalog import Catalog
from app.core.model_specs import Source
from app.weights.validator_client import ValidationTask, validate_warm

BASE_MODEL = "Llama-3-70B"
TIMEOUT_S = 120.0


def measure_70b(run_dir: Path, rounds: int) -> dict[str, list[float]]:
    """`validation_70b_s` and `validation_70b_read_bytes` of each round, after one that warms the validator up.

    Raises RuntimeError when the folder is found to be wrong.
    """
    entry = Catalog.load(None).find(BASE_MODEL)
    assert entry
    taken: dict[str, list[float]] = {"validation_70b_s": [], "validation_70b_read_bytes": []}
    with tempfile.TemporaryDirectory(prefix="modelunit-70b-") as name:
        folder = Path(name)
        write_sparse_llama_70b(folder)
        task = ValidationTask(source=Source(uri=folder.as_uri()), entry=entry, precision="BF16")
        for number in range(rounds + 1):
            started = time.monotonic()
            report = validate_warm(run_dir, task, TIMEOUT_S)
            if not report.ok:
                raise RuntimeError(f"the folder was refused: {[found.code for found in report.findings]}")
            if number:
                taken["validation_70b_s"].append(time.monotonic() - started)
                taken["validation_70b_read_bytes"].append(float(report.read_bytes))
    return taken
