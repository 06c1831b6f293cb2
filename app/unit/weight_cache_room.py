"""Room in a node's weight cache: how much it may hold, and what goes when more is wanted."""

import logging
import shutil

from app.core.errors import EngineStartError
from app.unit.weight_cache_entry import Entry
from app.unit.weight_cache_files import lock
from app.unit.weight_cache_progress import Tally, in_units

DEFAULT_SHARE = 0.8
"""Of what the disk would have free without the cache."""

log = logging.getLogger("ray.serve")


def make_room(entry: Entry, tally: Tally, total_bytes: int, cache_bytes: int | None, wait_s: float) -> None:
    """Have room for an entry of `total_bytes`, and promise it; whoever calls holds the entry's lock.

    What was used longest ago is removed first, and nothing that is in use. Raises EngineStartError, having removed
    nothing, when that cannot be enough.
    """
    cache_dir = entry.path.parent
    try:
        held = lock(cache_dir / "room.lock", wait_s)
    except TimeoutError:
        raise EngineStartError(f"room in the weight cache was being made by another for {wait_s:.0f} s") from None
    with held:
        others = [Entry(path) for path in cache_dir.iterdir() if path.is_dir() and path != entry.path]
        others.sort(key=lambda other: other.used_at)
        idle: list[tuple[Entry, int]] = []
        on_disk_bytes, busy_bytes, idle_bytes = entry.on_disk_bytes(), 0, 0
        for other in others:
            size = other.on_disk_bytes()
            on_disk_bytes += size
            with other.claimed() as is_idle:
                if is_idle and size:
                    idle.append((other, size))
                    idle_bytes += size
            if not is_idle:
                other.touch()
                busy_bytes += other.promised_bytes()

        capacity = on_disk_bytes + shutil.disk_usage(cache_dir).free
        bound = int(capacity * DEFAULT_SHARE) if cache_bytes is None else min(cache_bytes, capacity)
        _refuse_too_much(total_bytes, busy_bytes, bound)
        for other, size in idle:
            if busy_bytes + idle_bytes + total_bytes <= bound:
                break
            with other.claimed() as is_idle:
                if is_idle:
                    other.clear()
                    idle_bytes -= size
                    log.info("removed %s of unused weights from the cache", in_units(size))
        # What has come into use since it was looked at counts as idle still.
        _refuse_too_much(total_bytes, busy_bytes + idle_bytes, bound)
        entry.files.mkdir(exist_ok=True)
        tally.write()


def _refuse_too_much(wanted_bytes: int, busy_bytes: int, bound: int) -> None:
    if wanted_bytes > bound:
        raise EngineStartError(
            f"the weights take {in_units(wanted_bytes)}, and this node's weight cache may hold {in_units(bound)}: "
            "give its disk more room or raise MODELUNIT_CACHE_BYTES, or deploy on another node"
        )
    if wanted_bytes + busy_bytes > bound:
        raise EngineStartError(
            f"the weights take {in_units(wanted_bytes)}, and weights in use take {in_units(busy_bytes)} of the "
            f"{in_units(bound)} that this node's weight cache may hold: stop an endpoint, give the disk more room or "
            "raise MODELUNIT_CACHE_BYTES"
        )
