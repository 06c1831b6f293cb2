"""Estimates by the document's formula."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.core.errors import InvalidField
from app.core.tuning_estimate import EstimateSpec, cards_of, iterations_of, measured, span


def spec(**fields: Any) -> EstimateSpec:
    return EstimateSpec.model_validate({"model": "m-1"} | fields)


@pytest.mark.parametrize(
    ("flavor", "cards"),
    [("Ascend: 2*ascend-snt9b2(64GB)", 2), ("16*H100", 16), ("H100", 0), ("8 * A100", 8), ("snt9b*2", 0), ("", 0)],
)
def test_cards_are_the_number_before_the_star(flavor: str, cards: int) -> None:
    assert cards_of(flavor) == cards


def test_hours_are_36_times_iterations_by_cards_and_throughput() -> None:
    found = span(1000, 2, (1200.0, 1600.0), "a table")
    assert found.hours == (36 * 1000 / (2 * 1600), 36 * 1000 / (2 * 1200))
    assert span(1000, 2, (1200.0, 1600.0), "", tokens_per_row=4050.0).hours == pytest.approx(found.hours)
    assert span(1000, 2, (1200.0, 1600.0), "", tokens_per_row=405.0).hours[0] == pytest.approx(found.hours[0] / 10)


def test_iterations_follow_from_one_dial() -> None:
    assert iterations_of(spec()) == 1000
    assert iterations_of(spec(iterations=7)) == 7
    assert iterations_of(spec(epochs=2.0, rows=3200)) == 200
    with pytest.raises(InvalidField, match="rows is missing"):
        iterations_of(spec(epochs=2.0))


@pytest.mark.parametrize(
    "fields",
    [{"iterations": 1, "epochs": 1.0}, {"machine_type": "gpu-1", "flavor": "2*H100"}, {"flavor": "H100"}],
)
def test_what_says_two_things_or_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec(**fields)


def test_what_was_measured_is_a_range() -> None:
    assert measured([900.0, 0.0, 700.0]) == (700.0, 900.0)
    assert measured([0.0]) is None
