"""Tiers: how many requests a unit is to work on at once, and what its callers get for it."""

from dataclasses import dataclass
from typing import get_args

from app.core.specs import MachineType, ScaleSpec, TierName
from app.core.tier_estimates import Estimate, UnitSpeed, estimate

TIERS: tuple[TierName, ...] = get_args(TierName)

_SHARES: dict[TierName, tuple[int, int]] = {"low": (32, 16), "medium": (8, 4), "high": (1, 1)}
"""One in so many of what the engine takes at most: on a CPU, and on cards. A CPU is busy with fewer."""


@dataclass(frozen=True, slots=True)
class Tier:
    """One level of a unit, measured or estimated for PROMPT_TOKENS in and COMPLETION_TOKENS out, nothing cached."""

    name: TierName
    concurrency: int
    """Requests at once for each unit; beyond it further units come."""
    ttft_ms: float | None
    tpot_ms: float | None
    tps: float | None
    """Tokens in and out a second (S2). All three are None where nobody knows the model's size or the cards."""
    measured: bool
    """By a benchmark; else these are estimates."""


def tier_concurrency(name: TierName, machine: MachineType, max_num_seqs: int) -> int:
    """Requests at once for each unit of this tier; `max_num_seqs` is what its engine takes."""
    on_cpu, on_cards = _SHARES[name]
    return max(1, max_num_seqs // (on_cards if machine.accelerator_count else on_cpu))


def concurrency_of(scale: ScaleSpec, machine: MachineType, max_num_seqs: int) -> int:
    """Requests at once for each unit: what is asked for by number, else by tier, else what the engine takes."""
    if scale.target_concurrency is not None:
        return scale.target_concurrency
    return tier_concurrency(scale.tier or "high", machine, max_num_seqs)


def estimated_tiers(machine: MachineType, max_num_seqs: int, speed: UnitSpeed | None) -> tuple[Tier, ...]:
    """What each level is thought to give, the lowest first; `speed`: of a unit, None where it is not known."""
    found = []
    for name in TIERS:
        concurrency = tier_concurrency(name, machine, max_num_seqs)
        guess = estimate(concurrency, speed) if speed else Estimate(None, None, None)
        found.append(Tier(name, concurrency, guess.ttft_ms, guess.tpot_ms, guess.tps, measured=False))
    return tuple(found)


def units_for(tps: float, tier: Tier, step: int) -> int | None:
    """Units that carry so many tokens a second, in whole steps; None where the tier's speed is not known."""
    if not tier.tps:
        return None
    steps = -(-tps // (tier.tps * step))
    return max(1, int(steps)) * step
