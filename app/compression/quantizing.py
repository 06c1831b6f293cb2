"""Compression of a folder with a model into a folder with its quantized version, by a recipe."""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from app.compression.checkpoint import Checkpoint
from app.compression.shards import CONFIG, Shards, digest
from app.core.job_specs import CompressionProgress
from app.core.recipe import Recipe

Tell = Callable[[CompressionProgress], bool]
"""Hears how far it is, and says whether to stop."""
RECENT = 10
"""Layers by which the usual time of one is told."""


class Stopped(Exception):
    """It was to stop, and did so between two layers; another attempt goes on there."""

    def __init__(self, progress: CompressionProgress) -> None:
        super().__init__(progress)
        self.progress = progress


def quantize(source: Path, output: Path, recipe: Recipe, calibration: Sequence[list[int]], tell: Tell) -> None:
    """Write the quantized weights and their config.json into `output`, layer by layer.

    `calibration` are samples in tokens, none where the recipe looks at weights alone. What an attempt before has
    finished with the same model, recipe and samples stays, down to the last whole layer. `output` may hold nothing but
    that. Raises Stopped, and WeightsUnusable where the model cannot be compressed in this way.
    """
    checkpoint = Checkpoint(source)
    made_of = digest(checkpoint, recipe, calibration)
    if recipe.needs_calibration:
        _by_layers(source, checkpoint, output, recipe, calibration, made_of, tell)
    else:
        _by_weights(source, checkpoint, output, recipe, made_of, tell)


def _by_layers(
    source: Path,
    checkpoint: Checkpoint,
    output: Path,
    recipe: Recipe,
    calibration: Sequence[list[int]],
    made_of: str,
    tell: Tell,
) -> None:
    _quiet()
    from app.compression.sequential import Sequential  # noqa: PLC0415 (seconds)

    run = Sequential(source, checkpoint, recipe, calibration)
    shards = Shards(output, run.count + 1, made_of)
    done = next((number for number in range(run.count) if not shards.done(number + 1)), run.count)
    pace = _Pace(run.count, run.phase, tell, done)
    if done < run.count:
        with run.layers(done) as layers:
            for number, tensors in enumerate(layers, done + 1):
                shards.write(number, tensors, {})
                del tensors
                pace.done(number)
    if not shards.done(run.count + 1):
        shards.write(run.count + 1, {}, checkpoint.copied(run.rest))
    _finish(source, shards, recipe)


def _by_weights(source: Path, checkpoint: Checkpoint, output: Path, recipe: Recipe, made_of: str, tell: Tell) -> None:
    _quiet()
    from app.compression.weight_only import WeightOnly  # noqa: PLC0415 (seconds)

    run = WeightOnly(checkpoint, recipe)
    shards = Shards(output, len(run.parts), made_of)
    pace = _Pace(len(run.parts), run.phase, tell, sum(shards.done(number + 1) for number in range(len(run.parts))))
    for number in range(1, len(run.parts) + 1):
        if not shards.done(number):
            tensors, kept = run.make(number - 1)
            shards.write(number, tensors, checkpoint.copied(kept))
            del tensors
            pace.done(number)
    _finish(source, shards, recipe)


def _finish(source: Path, shards: Shards, recipe: Recipe) -> None:
    from app.compression.schemes import quantization_config  # noqa: PLC0415 (seconds)

    config = json.loads((source / CONFIG).read_bytes())
    shards.finish(config | {"quantization_config": quantization_config(recipe)})


def _quiet() -> None:
    """llm-compressor tells of each matrix, in a log of its own: it is asked not to before it is imported."""
    for name in ("LLM_COMPRESSOR", "COMPRESSED_TENSORS"):
        os.environ.setdefault(f"{name}_LOG_DISABLED", "true")


class _Pace:
    """Tells of layers as they are done, and raises Stopped when it is to stop."""

    def __init__(self, layers: int, phase: str, tell: Tell, done: int) -> None:
        self._layers, self._phase, self._tell = layers, phase, tell
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._since = time.monotonic()
        self._say(done)

    def done(self, number: int) -> None:
        now = time.monotonic()
        self._recent.append(now - self._since)
        self._since = now
        self._say(number)

    def _say(self, number: int) -> None:
        usual_s = median(self._recent) if self._recent else None
        progress = CompressionProgress(layer=number, layers=self._layers, phase=self._phase, s_per_layer=usual_s)
        if self._tell(progress) and number < self._layers:
            raise Stopped(progress)
