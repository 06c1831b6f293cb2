"""How fast a unit may be, before anybody has measured it: a roofline, so an estimate and labelled as one.

A unit works on c requests in a closed circle, PROMPT_TOKENS in and COMPLETION_TOKENS out each. Reading a prompt takes
2 x parameters x tokens operations. A step, which writes one token of each request, reads all weights and the requests'
KV cache from memory, or computes for as long as that takes longer. In the time of one request each of the others is
read once as well:

    cycle = c x prefill + COMPLETION_TOKENS x step
    TTFT  = prefill x (c + 1) / 2                      half of the others are before it, the other half come meanwhile
    TPOT  = (cycle - TTFT) / COMPLETION_TOKENS
    TPS   = c x (PROMPT_TOKENS + COMPLETION_TOKENS) / cycle

Requests for which the KV cache has no room wait for others to end, which adds to TTFT.
"""

from dataclasses import dataclass

from app.core.machines import memory_bytes
from app.core.specs import DeploymentMode, EngineSpec, MachineType

PROMPT_TOKENS = 3000
COMPLETION_TOKENS = 300
"""Of the requests that tiers are about (S2), none of them in the prefix cache."""

_CARDS = {
    "V100": (125, 0.9), "T4": (65, 0.32), "A100": (312, 2.0), "A100-40G": (312, 1.56), "A100-80G": (312, 2.0),
    "A30": (165, 0.93), "A10": (125, 0.6), "A10G": (125, 0.6), "A40": (150, 0.7),
    "L4": (121, 0.3), "L20": (119, 0.86), "L40": (181, 0.86), "L40S": (362, 0.86),
    "H100": (989, 3.35), "H200": (989, 4.8), "H20": (148, 4.0), "H800": (989, 3.35), "GH200": (989, 4.0),
    "B200": (2250, 8.0), "GB200": (2250, 8.0), "B300": (2250, 8.0), "GB300": (2250, 8.0),
}  # fmt: skip
"""Of one card, by Ray's names: 16-bit operations in 10^12 a second (dense), and memory in 10^12 bytes a second."""
_COMPUTE_SHARE, _MEMORY_SHARE = 0.5, 0.7
"""Of what a card has on paper engines get so much."""
_THREAD = (6e10, 3e9)
"""Operations and bytes a second that an engine gets for each CPU thread."""
_THREADS = 2
"""Where an engine takes all cores: how many those are is not known here, and no machine has fewer."""


@dataclass(frozen=True, slots=True)
class UnitSpeed:
    """What a unit has, and what its model takes of it."""

    operations_per_s: float
    bytes_per_s: float
    parameters: float
    weights_bytes: float
    kv_bytes_per_token: float = 0.0
    kv_bytes: float | None = None
    """Room in the KV cache; None: not known, and enough."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one unit with so many requests at once; None: nobody can tell."""

    ttft_ms: float | None
    tpot_ms: float | None
    tps: float | None


def unit_speed(
    machine: MachineType,
    mode: DeploymentMode,
    engine: EngineSpec,
    *,
    weights_bytes: int | None,
    parameters: float | None,
    kv_bytes_per_token: int | None,
) -> UnitSpeed | None:
    """Of a unit on a machine type; None where the size of its model or the kind of its cards is not known."""
    if not weights_bytes:
        return None
    hardware = _hardware(machine, mode, engine)
    if hardware is None:
        return None
    held = memory_bytes(machine, mode) if machine.accelerator_count else None
    cache = max(0, held - weights_bytes) if held else engine.kv_cache_bytes or machine.kv_cache_bytes
    # Without a count: 16 bits each, which is the most that any precision has.
    return UnitSpeed(*hardware, parameters or weights_bytes / 2, weights_bytes, kv_bytes_per_token or 0.0, cache)


def estimate(concurrency: int, speed: UnitSpeed) -> Estimate:
    """Times and tokens of a unit that so many callers keep busy."""
    running = min(concurrency, _held(speed, concurrency))
    prefill_s = 2 * speed.parameters * PROMPT_TOKENS / speed.operations_per_s
    read = speed.weights_bytes + running * speed.kv_bytes_per_token * (PROMPT_TOKENS + COMPLETION_TOKENS / 2)
    step_s = max(read / speed.bytes_per_s, 2 * speed.parameters * running / speed.operations_per_s)
    cycle_s = running * prefill_s + COMPLETION_TOKENS * step_s
    ttft_s = prefill_s * (running + 1) / 2
    waiting_s = (concurrency - running) / running * cycle_s
    return Estimate(
        ttft_ms=_rounded((ttft_s + waiting_s) * 1000),
        tpot_ms=_rounded((cycle_s - ttft_s) / COMPLETION_TOKENS * 1000),
        tps=_rounded(running * (PROMPT_TOKENS + COMPLETION_TOKENS) / cycle_s),
    )


def _hardware(machine: MachineType, mode: DeploymentMode, engine: EngineSpec) -> tuple[float, float] | None:
    """Operations and bytes a second."""
    if not machine.accelerator_count:
        threads = engine.threads or machine.engine_threads or _THREADS
        return _THREAD[0] * threads, _THREAD[1] * threads
    card = _CARDS.get(machine.accelerator or "")
    if card is None:
        return None
    cards = machine.accelerator_count * mode.machines
    return card[0] * 1e12 * _COMPUTE_SHARE * cards, card[1] * 1e12 * _MEMORY_SHARE * cards


def _held(speed: UnitSpeed, concurrency: int) -> int:
    """Requests for which the KV cache has room, at least one."""
    if speed.kv_bytes is None or not speed.kv_bytes_per_token:
        return concurrency
    return max(1, int(speed.kv_bytes / (speed.kv_bytes_per_token * (PROMPT_TOKENS + COMPLETION_TOKENS))))


def _rounded(value: float) -> float:
    """Two digits are more than an estimate knows."""
    return float(f"{value:.2g}")
