"""What a file of torch.save holds, as safetensors. Runs in the sandbox, for such a file may be anything."""

import math
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.weights import sandbox

_NESTED = ("state_dict", "model")
"""Where checkpoints keep the tensors that are not at their top."""
_WANTED = re.compile(r"GLOBAL (\S+) (?:was not an allowed|whose module)|unrecognized function (.+)|load (\S+) object")


class _Refused(Exception):
    pass


def import_torch() -> None:
    """Before the fork: importing it there would count as the file's time and memory."""
    import safetensors.torch  # noqa: F401, PLC0415 (seconds)
    import torch.utils.serialization  # noqa: F401, PLC0415


def rewrite(path: Path, is_zip: bool, target: Path, limit_bytes: int) -> str | None:
    """Write `target`, of tensors that take at most `limit_bytes`. Returns why not, or None when it is done."""
    from safetensors.torch import save_file  # noqa: PLC0415

    try:
        tensors = _separate(dict(_tensors_in(_load(path, is_zip))), limit_bytes)
    except _Refused as refused:
        return str(refused)
    except RecursionError:
        return "it is nested too deeply"
    try:
        save_file(tensors, target, metadata={"format": "pt"})
    except (KeyError, ValueError) as error:
        return f"it holds a tensor that safetensors cannot hold: {error}"
    return None


def _load(path: Path, is_zip: bool) -> Any:
    import torch  # noqa: PLC0415

    torch.serialization.clear_safe_globals()  # libraries add to them
    try:
        return torch.load(path, weights_only=True, mmap=is_zip, map_location="cpu")
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        wanted = _WANTED.search(str(error))
        if wanted:
            name = next(part for part in wanted.groups() if part)
            raise _Refused(f"it asks for {name}, and nothing is loaded but tensors, numbers and texts") from None
        raise _Refused("it is not a pickle of tensors, numbers and texts") from None
    except Exception as error:
        if sandbox.is_out_of_memory(error):
            raise MemoryError from None
        raise _Refused(f"it is not a file of torch.save: {type(error).__name__}") from None


def _tensors_in(loaded: Any) -> Iterator[tuple[str, Any]]:
    import torch  # noqa: PLC0415

    if not isinstance(loaded, dict):
        raise _Refused(f"it holds a {type(loaded).__name__}, not tensors by name")
    if not any(isinstance(value, torch.Tensor) for value in loaded.values()):
        loaded = next((loaded[key] for key in _NESTED if isinstance(loaded.get(key), dict)), loaded)
    empty = True
    for name, value in loaded.items():
        if not isinstance(name, str):
            raise _Refused(f"one of its tensors has a {type(name).__name__} for a name")
        if isinstance(value, torch.Tensor):
            empty = False
            yield name, _plain_tensor(name, value)
        elif not _is_metadata(value):
            raise _Refused(f"{name!r} is neither a tensor nor a number or text, but a {type(value).__name__}")
    if empty:
        raise _Refused("it holds no tensors")


def _is_metadata(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_metadata, value.keys())) and all(map(_is_metadata, value.values()))
    if isinstance(value, (list, tuple, set)):
        return all(map(_is_metadata, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _plain_tensor(name: str, tensor: Any) -> Any:
    import torch  # noqa: PLC0415

    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise _Refused(f"tensor {name!r} is a {type(tensor).__name__}, which safetensors cannot hold")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise _Refused(f"tensor {name!r} is sparse, quantized by torch or without data, which safetensors cannot hold")
    return tensor.detach().resolve_conj().resolve_neg()


def _separate(tensors: dict[str, Any], limit_bytes: int) -> dict[str, Any]:
    """The same tensors, each in one piece of memory of its own."""
    if sum(math.prod(tensor.shape) * tensor.element_size() for tensor in tensors.values()) > limit_bytes:
        raise _Refused("its tensors overlap so much that apart they would take more than twice the room")
    apart = {name: tensor.contiguous() for name, tensor in tensors.items()}
    taken_to = 0
    for name, tensor in sorted(apart.items(), key=lambda item: item[1].data_ptr()):
        if tensor.data_ptr() < taken_to:
            apart[name] = tensor.clone()
        else:
            taken_to = tensor.data_ptr() + tensor.nbytes
    return apart
