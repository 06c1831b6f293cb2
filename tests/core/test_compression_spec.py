"""What people wish for of a compression."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.core.compression_spec import QuantizeSpec, VersionSpec
from app.core.field_errors import field_error
from app.core.job_specs import TASK, CompressionProgress, JobProgress, QuantizeTask
from app.core.specs import MACHINE_TYPES

BODY: dict[str, Any] = {"name": "smaller", "model": "m-1", "precision": "SmoothQuant-W8A8"}


@pytest.mark.parametrize(
    ("fields", "strength"),
    [
        ({}, 0.5),
        ({"migration_strength": 0.0}, 0.0),
        ({"migration_strength": 1.0}, 1.0),
        ({"precision": "AWQ-W4A16"}, None),
        ({"precision": "W8A8_FP8"}, None),
        ({"precision": "W4A8"}, None),
    ],
)
def test_only_smoothquant_has_a_migration_strength(fields: dict[str, Any], strength: float | None) -> None:
    assert QuantizeSpec.model_validate(BODY | fields).strength == strength


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"precision": "AWQ-W4A16", "migration_strength": 0.5}, "migration_strength"),
        ({"migration_strength": -0.1}, "migration_strength"),
        ({"precision": "BF16"}, "precision"),
        ({"calibration_samples": 4097}, "calibration_samples"),
        ({"calibration_length": 15}, "calibration_length"),
        ({"recipe": {"group_size": 7}}, "recipe.group_size"),
        ({"recipe": {"fp8_layout": "row"}}, "recipe.fp8_layout"),
        ({"recipe": {"keep": ["a b"]}}, "recipe.keep[0]"),
        ({"auto_stop_s": 59}, "auto_stop_s"),
        ({"strength": 1}, "strength"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ValidationError) as refused:
        QuantizeSpec.model_validate(BODY | fields)
    assert field_error(refused.value).param == param


def test_a_version_is_wished_for_without_a_model_or_a_name() -> None:
    assert VersionSpec.model_validate({"precision": "W4A8"}).name is None
    with pytest.raises(ValidationError):
        VersionSpec.model_validate({"precision": "W4A8", "output_model_name": "small"})


def test_a_task_says_where_its_version_is_to_lie() -> None:
    fields = {"job_id": "job-2", "model_id": "m-1", "base_model": "b", "prefix": "models/m-1/BF16/"}
    machine = MACHINE_TYPES["cpu-small"]
    task = QuantizeTask(**fields, precision="W4A8", spec=QuantizeSpec.model_validate(BODY), machine=machine)
    assert TASK.validate_json(task.model_dump_json()) == task
    assert task.output_model_id == "m-1"
    new = task.model_copy(update={"spec": task.spec.model_copy(update={"output_model_name": "small"})})
    assert new.output_model_id == "m-2"  # of job-2


def test_progress_goes_by_layers() -> None:
    told = CompressionProgress(layer=3, layers=12, phase="quantizing", s_per_layer=2.0)
    assert (told.fraction, told.eta_s) == (0.25, 18.0)
    assert JobProgress(phase="quantizing", compression=told).fraction == 0.25
    assert told.metrics == {"layer": 3.0, "layers": 12.0, "s_per_layer": 2.0}
    unknown = CompressionProgress(layer=0, layers=12, phase="calibrating")
    assert (unknown.eta_s, unknown.metrics) == (None, {"layer": 0.0, "layers": 12.0})
