"""Pickled weights (.bin, .ckpt) to safetensors, once and in the sandbox: nothing else ever reads them."""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from app.weights import sandbox
from app.weights.folder_contents import INDEX
from app.weights.pickled_weights import import_torch, rewrite
from app.weights.safetensors_headers import read_header

MEMORY_BYTES = 4 << 30
"""Beside the file itself, which is mapped; in the format before torch 1.6 it has to fit in here."""

_ZIP = b"PK\x03\x04"
_MIN_TIME_S = 60.0
_BYTES_PER_S = 20 << 20
_SPARE_BYTES = 64 << 20


class PickleRefused(ValueError):
    """The file cannot be loaded without running code, is no weight file, or is too large. The text has no paths."""


def convert(path: Path, target: Path, *, memory_bytes: int = MEMORY_BYTES, time_s: float | None = None) -> None:
    """Create or replace `target`, whole, by what the tensors of `path` are as one safetensors file.

    Accepts tensors by name, or a checkpoint with those under "state_dict" or "model"; numbers and texts beside
    them are dropped. Tensors that share memory become separate. Without `time_s` it takes a minute plus a second
    for every 20 MiB. Raises PickleRefused, OSError when it cannot be written, SandboxFailed when this system
    cannot confine a process.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        is_zip = file.read(len(_ZIP)) == _ZIP
    if not is_zip and size_bytes > memory_bytes:
        raise PickleRefused(
            f"it is too large: {_mib(size_bytes)} in a format that has to be loaded whole, and {_mib(memory_bytes)} "
            "are allowed; save it again with a newer torch, or as safetensors"
        )
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    limit_bytes = _output_limit(size_bytes)
    try:
        import_torch()
        refused = sandbox.run(
            rewrite, path.resolve(), is_zip, partial.resolve() / target.name, limit_bytes,
            # The file is mapped, and torch maps it as if to write to it.
            memory_bytes=memory_bytes + (size_bytes if is_zip else 0),
            time_s=time_s or _MIN_TIME_S + size_bytes / _BYTES_PER_S,
            writable=partial.resolve(), file_bytes=limit_bytes,
        )  # fmt: skip
        if refused:
            raise PickleRefused(sandbox.shown(refused))
        _publish(partial / target.name, target)
    except sandbox.SandboxFailed as failure:
        if failure.kind == "setup":
            raise
        if failure.kind == "error":  # what the file itself causes comes back as an answer
            raise OSError(f"the converted weights could not be written: {failure.reason}") from None
        limit = f"it is too large: {_mib(memory_bytes)} do not suffice to load it" if failure.kind == "memory" else None
        raise PickleRefused(limit or f"it cannot be loaded: {failure.reason}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def convert_folder(
    folder_dir: Path,
    files: Iterable[str],
    on_file: Callable[[str], None] = lambda name: None,
    *,
    memory_bytes: int = MEMORY_BYTES,
) -> list[str]:
    """Convert these files of a folder, and write the index when there are several. Returns the names of the results.

    pytorch_model-00001-of-00002.bin becomes model-00001-of-00002.safetensors. The originals stay. What an earlier
    call finished, and whose original has not changed since, is left as it is. `on_file` hears of each result.
    Raises as convert does, with the name of the file, and PickleRefused when two files would have the same result.
    """
    names = sorted(files)
    targets = {name: _target_name(name) for name in names}
    if len(set(targets.values())) < len(names):
        raise PickleRefused("two files differ only in their ending, so that it is not clear which one counts")
    for name, target in targets.items():
        if not _is_newer(folder_dir / target, folder_dir / name):
            try:
                convert(folder_dir / name, folder_dir / target, memory_bytes=memory_bytes)
            except PickleRefused as refused:
                raise PickleRefused(f"{name}: {refused}") from None
        on_file(target)
    results = sorted(targets.values())
    if len(results) > 1:
        _write_index(folder_dir, results)
        results.append(INDEX)
    return results


def _target_name(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{Path(last).stem.removeprefix('pytorch_')}.safetensors"


def _is_newer(target: Path, source: Path) -> bool:
    """A target is complete if it is there, since it appears whole."""
    return target.is_file() and target.stat().st_mtime_ns >= source.stat().st_mtime_ns


def _write_index(folder_dir: Path, names: list[str]) -> None:
    weight_map: dict[str, str] = {}
    total_bytes = 0
    for name in names:
        tensors = _tensors(folder_dir / name)
        weight_map |= dict.fromkeys(tensors, name)
        total_bytes += sum(tensors.values())
    index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    partial = folder_dir / f".{INDEX}.partial"
    partial.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder_dir / INDEX)


def _tensors(path: Path) -> dict[str, int]:
    """Names and sizes in bytes."""
    return {name: tensor.end - tensor.start for name, tensor in read_header(path).tensors.items()}


def _publish(written: Path, target: Path) -> None:
    """The sandbox wrote it, so it is looked at first."""
    if written.is_symlink() or not written.is_file():
        raise PickleRefused("it cannot be loaded: what came of it is not a file")
    written.chmod(0o644)
    with written.open("rb") as file:
        os.fsync(file.fileno())
    written.replace(target)


def _output_limit(size_bytes: int) -> int:
    """Tensors that shared memory take more room apart: twice the file holds an embedding that is used as head too."""
    return 2 * size_bytes + _SPARE_BYTES


def _mib(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB"
