"""What a real engine compiles for a model is there for its next start."""

from pathlib import Path

import pytest

from app.unit.engine import EngineLaunch, Simulation
from app.unit.engine_client import EngineClient
from tests.unit.engines import launch_of, until_ended
from tests.weights.sound_folders import write_sound

START_S = 500

pytestmark = [pytest.mark.engine, pytest.mark.soak, pytest.mark.timeout(3 * START_S)]


async def compiled_by_a_start(launch: EngineLaunch, run_dir: Path) -> dict[Path, int]:
    """Libraries in the launch's folder after a start, with the time each was written."""
    engine = await EngineClient.start(launch, run_dir, START_S)
    engine.close()
    await until_ended(engine.pid)
    return _written_at(Path(launch.compiled_dir))


def _written_at(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.so")}


async def test_what_was_compiled_is_not_compiled_again(module_run_dir: Path, tmp_path: Path) -> None:
    write_sound("llama", tmp_path / "model")
    launch = launch_of(module_run_dir, Simulation()).model_copy(
        update={
            "kind": "vllm", "model_dir": str(tmp_path / "model"), "compiled_dir": str(tmp_path / "compiled"),
            "enforce_eager": False, "kv_cache_bytes": 16 << 20,
        }
    )  # fmt: skip
    first = await compiled_by_a_start(launch, module_run_dir)
    assert first
    assert launch.warming_file.exists()  # it said when it began to compile
    assert await compiled_by_a_start(launch, module_run_dir) == first
