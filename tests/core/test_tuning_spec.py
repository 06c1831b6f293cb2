"""What people may wish for of a fine-tuning, and the plan that follows."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from app.core.errors import InvalidField
from app.core.tuning_spec import TrainingPlan, TuningSpec, advised_epochs, plan

LEAST = {"name": "t", "model": "m-1", "output_model_name": "o", "dataset": {"uri": "s3://bucket/data.jsonl"}}


def spec(**fields: Any) -> TuningSpec:
    return TuningSpec.model_validate_json(json.dumps(LEAST | fields))


def test_defaults_are_the_documents() -> None:
    planned = plan(spec(), rows=3200)
    assert (planned.iterations, planned.rows_per_iteration, planned.learning_rate) == (1000, 32, 2e-5)
    assert (planned.rank, planned.alpha, planned.targets, planned.schedule) == (16, 32, "all-linear", "cosine")
    assert (planned.max_length, planned.packing, planned.precision) == (4096, True, "auto")
    assert (spec().method, spec().export, spec().instances, spec().auto_stop_s) == ("lora", "auto", 1, None)


def test_two_epochs_of_3200_rows_are_200_iterations() -> None:
    planned = plan(spec(epochs=2, validation_share=0), rows=3200)
    assert (planned.iterations, planned.epochs) == (200, 2.0)
    assert planned.origins["iterations"] == "derived from epochs and 3200 rows of training"
    assert planned.origins["epochs"] == "given"


def test_iterations_tell_the_epochs() -> None:
    planned = plan(spec(iterations=100, validation_share=0.5), rows=320)
    assert (planned.validation_rows, planned.training_rows, planned.epochs) == (160, 160, 20.0)
    assert planned.origins["iterations"] == "given"


@pytest.mark.parametrize(("rows", "validated"), [(1, 0), (199, 0), (200, 10), (1_000_000, 512)])
def test_small_sets_are_for_training_alone(rows: int, validated: int) -> None:
    assert plan(spec(), rows).validation_rows == validated


@pytest.mark.parametrize(("iterations", "every"), [(0, 1), (10, 1), (1000, 50), (100_000, 500)])
def test_checkpoints_follow_from_the_length(iterations: int, every: int) -> None:
    assert plan(spec(iterations=iterations), 10).checkpoint_every == every
    assert plan(spec(iterations=iterations, checkpoint_every=7), 10).checkpoint_every == 7


def test_the_length_of_samples_is_the_model_s_at_most() -> None:
    assert plan(spec(), 1, longest_tokens=2048).max_length == 2048
    assert plan(spec(), 1, longest_tokens=32768).max_length == 4096
    assert plan(spec(max_length=8192), 1, longest_tokens=32768).max_length == 8192
    with pytest.raises(InvalidField, match="The model takes at most 2048"):
        plan(spec(max_length=4096), 1, longest_tokens=2048)


def test_what_does_not_go_with_the_data() -> None:
    with pytest.raises(InvalidField, match="no conversation"):
        plan(spec(), rows=0)
    with pytest.raises(InvalidField, match="at most 100000"):
        plan(spec(epochs=1000), rows=1_000_000)


def test_every_value_says_where_it_comes_from_also_after_a_while_in_the_registry() -> None:
    kept = TuningSpec.model_validate_json(
        json.dumps(spec(learning_rate=1e-4).model_dump(mode="json", exclude_unset=True))
    )
    planned = plan(kept, 64)
    assert set(planned.origins) == set(TrainingPlan.model_fields) - {"origins"}
    assert "learning_rate: 0.0001 (given)" in planned.told()
    assert "rank: 16 (default)" in planned.told()
    assert TrainingPlan.model_validate_json(planned.model_dump_json()) == planned


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "with.dot"}, "name"), ({"name": "1st"}, "name"), ({"name": "n" * 65}, "name"),
        ({"description": "d" * 1001}, "description"), ({"output_model_name": "-x"}, "output_model_name"),
        ({"iterations": -1}, "iterations"), ({"iterations": 100_001}, "iterations"),
        ({"iterations": 1.5}, "iterations"),
        ({"iterations": 1, "epochs": 1}, "epochs"), ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0.11}, "learning_rate"), ({"learning_rate": -1e-9}, "learning_rate"),
        ({"learning_rate": "1e-5"}, "learning_rate"), ({"rank": 0}, "rank"), ({"dropout": 1}, "dropout"),
        ({"targets": []}, "targets"), ({"targets": ["q proj"]}, "targets"), ({"method": "qlora"}, "method"),
        ({"instances": 0}, "instances"), ({"auto_quantize": ["BF16"]}, "auto_quantize"),
        ({"auto_quantize": ["W4A8", "W4A8"]}, "auto_quantize"), ({"auto_stop_s": 59}, "auto_stop_s"),
        ({"dataset": {"uri": "https://host/data.jsonl"}}, "dataset"), ({"dataset": {"uri": "s3://bucket"}}, "dataset"),
        ({"dataset": {"uri": "file:///folder/"}}, "dataset"), ({"output": {"uri": "out"}}, "output"),
        ({"colour": "red"}, "colour"),
    ],
)  # fmt: skip
def test_what_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(**fields)
    assert caught.value.errors()[0]["loc"][0] == field


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "微调-1_a"}, {"iterations": 0}, {"iterations": 100_000}, {"learning_rate": 0}, {"learning_rate": 0.1},
        {"targets": ["q_proj", "v_proj"]}, {"targets": "all-linear"}, {"output_model_name": "v1.2"},
        {"keep_logs": {"uri": "s3://bucket/logs"}}, {"auto_stop_s": 3600}, {"dataset": {"uri": "file:///a.csv"}},
    ],
)  # fmt: skip
def test_what_is_taken(fields: dict[str, Any]) -> None:
    spec(**fields)


def test_the_advised_epochs_are_the_documents() -> None:
    assert [advised_epochs(rows) for rows in (300, 3000, 30_000)] == [(4, 8), (2, 4), (1, 2)]
