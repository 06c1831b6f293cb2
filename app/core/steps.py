"""Scale ranges go in steps of their machine type."""

from app.core.specs import MOST_UNITS, EngineSpec, MachineType, ScaleSpec


def scale_problem(scale: ScaleSpec, machine: MachineType, engine: EngineSpec) -> tuple[str, str] | None:
    """Why units of this machine type cannot come and go like this, as (field, reason); None: they can."""
    for field, units in (("min_units", scale.min_units), ("max_units", scale.max_units)):
        if units % machine.step:
            below = units - units % machine.step
            least = 0 if field == "min_units" else machine.step
            nearest = " or ".join(str(near) for near in (below, below + machine.step) if least <= near <= MOST_UNITS)
            return (
                f"scale.{field}",
                f"{field} is {units}, but units of {machine.name} come in steps of {machine.step}; nearest: {nearest}",
            )
    wanted = scale.target_concurrency
    if wanted is not None and wanted > engine.max_num_seqs:
        most = f"an engine works on {engine.max_num_seqs} at once (engine.max_num_seqs)"
        return "scale.target_concurrency", f"target_concurrency is {wanted}, but {most}"
    return None
