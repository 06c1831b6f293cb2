"""What this machine computes with: its CPU's instructions, and its NVIDIA cards, how busy they are and what is used.

Cards are asked about by the driver's own library (NVML), where there is one.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
_VERSION_BYTES = 80
"""NVML's own limit."""


@dataclass(frozen=True, slots=True)
class CardUse:
    """One card; None for what its driver does not tell."""

    busy_pct: float | None
    used_bytes: int | None


def driver_version(library: Any = None) -> str | None:
    """The version of this node's driver, such as "580.65.06"; None where there is none."""
    nvml = library if library is not None else _load()
    told = ctypes.create_string_buffer(_VERSION_BYTES)
    if nvml is None or nvml.nvmlSystemGetDriverVersion(told, ctypes.c_uint(_VERSION_BYTES)):
        return None
    return told.value.decode(errors="replace") or None


def has_amx(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether this machine's CPU has Intel's matrix instructions, as the kernel lets programs use them.

    None where the kernel does not tell.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return None
    flags = next((line.split() for line in lines if line.startswith(("flags", "Features"))), None)
    return None if flags is None else "amx_tile" in flags


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class Accelerators:
    """The cards that a unit was given, by what CUDA_VISIBLE_DEVICES says: indices, or names such as GPU-..."""

    def __init__(self, visible: str, library: Any = None):
        names = [name.strip() for name in visible.split(",")]
        self._names = [name for name in names if name and name != "-1"]
        self._nvml = library if library is not None or not self._names else _load()

    def read(self) -> Sequence[CardUse]:
        """Each card's use; none where there is no card or no driver. Blocks for a few milliseconds."""
        if self._nvml is None:
            return ()
        return [self._use(handle) for name in self._names if (handle := self._handle(name)) is not None]

    def _handle(self, name: str) -> ctypes.c_void_p | None:
        handle = ctypes.c_void_p()
        if name.isdigit():
            failed = self._nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(name)), ctypes.byref(handle))
        else:
            failed = self._nvml.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
        return None if failed else handle

    def _use(self, handle: ctypes.c_void_p) -> CardUse:
        utilization, memory = _Utilization(), _Memory()
        no_utilization = self._nvml.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(utilization))
        no_memory = self._nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
        return CardUse(
            None if no_utilization else float(utilization.gpu),
            None if no_memory else int(memory.used),
        )


def _load() -> Any:
    try:
        library = ctypes.CDLL(LIBRARY)
        return None if library.nvmlInit_v2() else library
    except (OSError, AttributeError):
        return None
