"""From what people ask for and what a unit carries to the rules that scaling follows."""

from app.core.scaling import Rules
from app.core.specs import MachineType, ScaleSpec
from app.core.tiers import concurrency_of


def rules_of(scale: ScaleSpec, machine: MachineType, max_num_seqs: int, tokens_per_unit: float | None = None) -> Rules:
    """`max_num_seqs`: requests that an engine works on at once; `tokens_per_unit`: what its KV cache holds, if known.

    Raises ValueError for a range that is not in the machine type's steps, see app/core/steps.py.
    """
    return Rules(
        min_units=scale.min_units,
        max_units=scale.max_units,
        step=machine.step,
        concurrency=concurrency_of(scale, machine, max_num_seqs),
        tokens_per_unit=tokens_per_unit,
        idle_to_zero_s=scale.sleeps_after_s,
        down_after_s=scale.down_after_s,
    )
