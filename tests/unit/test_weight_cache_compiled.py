"""What engines compile is kept for the next start, but never so that it hinders one, or fills the disk."""

import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from app.store.file_store import FileStore
from app.store.layout import version_prefix
from app.unit import weight_cache_compiled
from app.unit.weight_cache import Weights, fetch
from app.unit.weight_cache_compiled import INDEX, UNUSED_S
from tests.unit.weight_units import FarStore

WHOLE = "{   ((1, 64), 0, 'inductor'): ('ab12', '/some/where')}"
MODELS = ("m-1", "m-2")


@pytest.fixture
def far(tmp_path: Path) -> FarStore:
    """Holds two published versions."""
    store = FarStore(tmp_path / "objects")
    for model in MODELS:
        store.publish(model, {"config.json": f'{{"of": "{model}"}}'.encode()})
    return store


def use(store: FileStore, cache: Path, model: str = "m-1") -> Weights:
    """As a unit that starts."""
    return fetch(store, version_prefix(model, "BF16"), cache)


def compile_for(store: FileStore, cache: Path, model: str = "m-1", index: str = WHOLE) -> Path:
    """As an engine does; returns the folder with what was compiled. Its unit has ended."""
    with closing(use(store, cache, model)) as weights:
        place = weights.compiled / "torch_compile_cache" / "0a1b2c" / "rank_0_0" / "backbone"
        place.mkdir(parents=True, exist_ok=True)
        (place / INDEX).write_text(index)
        (place / "computation_graph.py").write_text("def forward(self, x")
        return weights.compiled


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def let_days_pass(compiled: Path) -> None:
    """Since its files were used."""
    unused_since = time.time() - UNUSED_S - 1
    os.utime(compiled.parent / "use", (unused_since, unused_since))


@pytest.mark.parametrize("index", ["", WHOLE[:-1], WHOLE[:20], "[1]", "os.abort()", "\0", "(" * 1000])
def test_a_list_that_was_cut_off_is_removed_before_the_next_start(near: FileStore, cache: Path, index: str) -> None:
    compiled = compile_for(near, cache, index=index)
    use(near, cache).close()
    assert names(compiled) == ["computation_graph.py"]


def test_what_is_whole_is_there_for_the_next_start(near: FileStore, cache: Path) -> None:
    compiled = compile_for(near, cache)
    use(near, cache).close()
    assert names(compiled) == ["computation_graph.py", INDEX]


@pytest.mark.parametrize("where", ["near", "far"])
def test_what_is_too_much_goes_as_a_whole_once_nobody_uses_it(
    request: pytest.FixtureRequest, where: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = request.getfixturevalue(where)
    compiled = compile_for(store, cache)
    with closing(use(store, cache)):
        monkeypatch.setattr(weight_cache_compiled, "MOST_BYTES", 10)
        use(store, cache).close()
        assert names(compiled)
    with closing(use(store, cache)) as weights:
        assert not compiled.exists()
        assert (weights.folder / "config.json").is_file()


def test_what_nobody_has_used_for_long_goes_when_another_version_starts(near: FileStore, cache: Path) -> None:
    old = compile_for(near, cache)
    use(near, cache, "m-2").close()
    assert old.exists()
    let_days_pass(old)
    use(near, cache, "m-2").close()
    assert not old.exists()


def test_what_is_in_use_stays_however_long(near: FileStore, cache: Path) -> None:
    compiled = compile_for(near, cache)
    with closing(use(near, cache)):
        let_days_pass(compiled)
        use(near, cache, "m-2").close()
        assert compiled.exists()


def test_what_was_compiled_for_files_in_the_cache_goes_with_them_only(
    near: FileStore, far: FarStore, cache: Path
) -> None:
    compiled = compile_for(far, cache)
    let_days_pass(compiled)
    use(near, cache, "m-2").close()
    assert compiled.exists()
