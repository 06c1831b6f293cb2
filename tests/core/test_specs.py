import math
from typing import Any

import pytest
from pydantic import ValidationError

from app.core.field_errors import field_error
from app.core.specs import IDLE_TO_ZERO_S, EndpointSpec, ScaleSpec

GOOD = {"name": "demo", "model": "m"}


def refusal(**fields: Any) -> Any:
    with pytest.raises(ValidationError) as caught:
        EndpointSpec.model_validate(GOOD | fields)
    return field_error(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": "演示"},
        {"description": "d" * 256},
        {"precision": "W8A8_FP8"},
        {"scale": {"min_units": 1, "max_units": 64}},
        {"scale": {"min_units": 0}},
        {"scale": {"min_units": 0, "idle_to_zero_s": 10, "down_after_s": 1, "drain_s": 1}},
        {"scale": {"min_units": 0, "idle_to_zero_s": 30 * 86_400, "down_after_s": 86_400, "drain_s": 3600}},
        {"scale": {"tier": "low", "target_concurrency": 4096}},
        {"allowed_networks": ["10.0.0.0/8", "2001:db8::/32"]},  # a list, as YAML and JSON have it
        {"limits": {"qps_per_unit": 0.5}},
        {"max_model_len": 16},
        {"engine": {"max_num_seqs": 1, "threads": 1, "kv_cache_bytes": 1 << 20}},
    ],
)
def test_accepted(fields: dict[str, Any]) -> None:
    spec = EndpointSpec.model_validate(GOOD | fields)
    assert EndpointSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"name": "1st"}, "name", "starting with a letter"),
        ({"name": 5}, "name", "name is 5"),
        ({"description": "d" * 257}, "description", "256"),
        ({"model": ""}, "model", "length 0"),
        ({"precision": "FP4"}, "precision", "'BF16'"),
        ({"scale": {"min_units": -1}}, "scale.min_units", "is -1"),
        ({"scale": {"min_units": 0, "max_units": 0}}, "scale.max_units", "is 0"),
        ({"scale": {"max_units": 65}}, "scale.max_units", "is 65"),
        ({"scale": {"min_units": 3, "max_units": 2}}, "scale", "min_units (3) is above max_units (2)"),
        ({"scale": {"min_units": "1"}}, "scale.min_units", "a string"),
        ({"scale": {"idle_to_zero_s": 60}}, "scale", "idle_to_zero_s needs min_units 0"),
        ({"scale": {"min_units": 0, "idle_to_zero_s": 9}}, "scale.idle_to_zero_s", "is 9"),
        ({"scale": {"tier": "highest"}}, "scale.tier", "'high'"),
        ({"scale": {"target_concurrency": 0}}, "scale.target_concurrency", "is 0"),
        ({"scale": {"down_after_s": 0}}, "scale.down_after_s", "is 0"),
        ({"scale": {"drain_s": 3601}}, "scale.drain_s", "is 3601"),
        ({"allowed_networks": ["10.0.0.1/8"]}, "allowed_networks[0]", "without host bits"),
        ({"allowed_networks": "10.0.0.0/8"}, "allowed_networks", "a string"),
        ({"limits": {"qps_per_unit": 0}}, "limits.qps_per_unit", "is 0"),
        ({"max_model_len": 15}, "max_model_len", "is 15"),
        ({"max_model_len": 4096.0}, "max_model_len", "4096.0"),
        ({"engine": {"max_num_seqs": 0}}, "engine.max_num_seqs", "is 0"),
        ({"engine": {"kv_cache_bytes": (1 << 50) + 1}}, "engine.kv_cache_bytes", "is 1125899906842625"),
        ({"engine": {"kv_cache_bytes": 1 << 1100}}, "engine.kv_cache_bytes", "less than or equal to 1125899906842624"),
        ({"limits": {"qps_per_unit": math.nan}}, "limits.qps_per_unit", "finite"),
        ({"name": "ep-20260131093000-abcde"}, "name", "a string of length 23"),
        ({"engine": {"prefix_caching": "on"}}, "engine.prefix_caching", "a string"),
        ({"engine": {"strict": 1}}, "engine.strict", "not a field"),
        ({"colour": "red"}, "colour", "not a field"),
    ],
)
def test_refused_by_name(fields: dict[str, Any], param: str, said: str) -> None:
    error = refusal(**fields)
    assert error.param == param
    assert said in error.message


@pytest.mark.parametrize(
    ("scale", "sleeps_after_s"),
    [({}, None), ({"min_units": 0}, IDLE_TO_ZERO_S), ({"min_units": 0, "idle_to_zero_s": 45}, 45)],
)
def test_what_may_sleep_sleeps_after_its_time(scale: dict[str, Any], sleeps_after_s: int | None) -> None:
    assert ScaleSpec.model_validate(scale).sleeps_after_s == sleeps_after_s


def test_a_spec_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        EndpointSpec.model_validate(GOOD).name = "other"
