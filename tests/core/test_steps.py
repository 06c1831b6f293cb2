"""Scale ranges go in steps of their machine type."""

import pytest

from app.core.specs import EngineSpec, MachineType, ScaleSpec
from app.core.steps import scale_problem

ENGINE = EngineSpec()


def machine(step: int) -> MachineType:
    return MachineType(name="m", step=step)


@pytest.mark.parametrize(
    ("low", "high", "step"), [(0, 4, 1), (0, 4, 2), (0, 4, 4), (4, 12, 4), (4, 8, 4), (1, 64, 1), (63, 63, 3)]
)
def test_multiples_are_allowed(low: int, high: int, step: int) -> None:
    assert scale_problem(ScaleSpec(min_units=low, max_units=high), machine(step), ENGINE) is None


@pytest.mark.parametrize(
    ("low", "high", "step", "field", "nearest"),
    [
        (1, 4, 4, "scale.min_units", "nearest: 0 or 4"),
        (5, 8, 4, "scale.min_units", "nearest: 4 or 8"),
        (4, 10, 4, "scale.max_units", "nearest: 8 or 12"),
        (0, 1, 2, "scale.max_units", "nearest: 2"),
        (0, 64, 3, "scale.max_units", "nearest: 63"),
    ],
)
def test_the_nearest_that_are_allowed_are_named(low: int, high: int, step: int, field: str, nearest: str) -> None:
    problem = scale_problem(ScaleSpec(min_units=low, max_units=high), machine(step), ENGINE)
    assert problem is not None
    assert problem[0] == field
    assert problem[1].endswith(nearest)


def test_a_unit_is_not_meant_for_more_than_its_engine_takes() -> None:
    assert scale_problem(ScaleSpec(target_concurrency=64), machine(1), ENGINE) is None
    problem = scale_problem(ScaleSpec(target_concurrency=65), machine(1), ENGINE)
    assert problem == (
        "scale.target_concurrency",
        "target_concurrency is 65, but an engine works on 64 at once (engine.max_num_seqs)",
    )
