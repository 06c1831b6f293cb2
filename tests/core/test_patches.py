"""Changes of specs, and etags."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app.core.errors import BadRequest, Conflict
from app.core.etags import etag_of, require_match
from app.core.patches import changed_fields, patched
from app.core.records import Endpoint
from app.core.specs import EndpointSpec

SPEC = EndpointSpec.model_validate(
    {
        "name": "demo",
        "model": "m",
        "description": "words",
        "machine_type": "gpu-1",
        "scale": {"min_units": 1, "max_units": 4},
        "limits": {"qps_per_unit": 3},
        "engine": {"threads": 2},
        "auto_stop_s": 3600,
        "allowed_networks": ["10.0.0.0/8", "fd00::/8"],
    }
)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, ()),
        ({"name": "demo", "scale": {"max_units": 4}}, ()),
        ({"description": "others"}, ("description",)),
        ({"scale": {"max_units": 5}}, ("scale.max_units",)),
        ({"scale": {"min_units": 2, "max_units": 2}}, ("scale.min_units", "scale.max_units")),
        ({"engine": {"threads": None, "max_num_seqs": 8}}, ("engine.max_num_seqs", "engine.threads")),
        ({"limits": {"qps_per_unit": None}}, ("limits.qps_per_unit",)),
        ({"limits": None}, ("limits.qps_per_unit",)),
        ({"scale": None}, ("scale.max_units",)),
        ({"auto_stop_s": None, "machine_type": None}, ("machine_type", "auto_stop_s")),
        ({"allowed_networks": ["10.0.0.0/8"]}, ("allowed_networks",)),
        ({"allowed_networks": []}, ("allowed_networks",)),
    ],
)
def test_exactly_what_is_named_changes(changes: dict[str, Any], fields: tuple[str, ...]) -> None:
    after = patched(SPEC, changes)
    assert changed_fields(SPEC, after) == fields
    assert (after == SPEC) is (fields == ())
    for name in set(EndpointSpec.model_fields) - set(changes):
        assert getattr(after, name) == getattr(SPEC, name)


def test_null_is_what_is_left_out() -> None:
    bare = EndpointSpec(name="demo", model="m")
    assert patched(SPEC, {name: None for name in EndpointSpec.model_fields if name not in ("name", "model")}) == bare


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"name": "1st"}, "name"),
        ({"name": None}, "name"),
        ({"model": None}, "model"),
        ({"colour": "red"}, "colour"),
        ({"colour": None}, "colour"),
        ({"scale": {"colour": None}}, "scale.colour"),
        ({"scale": {"min_units": 5}}, "scale"),
        ({"scale": 3}, "scale"),
        ({"scale": {"min_units": "2"}}, "scale.min_units"),
        ({"engine": {"threads": 1.0}}, "engine.threads"),
        ({"allowed_networks": ["10.0.0.0/8", "here"]}, "allowed_networks[1]"),
        ({"description": {"de": "Worte"}}, "description"),
        ({"x" * 500: None}, "x" * 128),
    ],
)
def test_a_wrong_change_is_refused_by_field(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        patched(SPEC, changes)
    assert refused.value.param == param


def test_text_that_is_none_is_refused() -> None:
    with pytest.raises(BadRequest):
        patched(SPEC, {"description": "\ud800"})


def endpoint(**fields: Any) -> Endpoint:
    made = {"id": "ep-1", "created_at": datetime(2026, 2, 1, tzinfo=UTC), "workspace": "default", "spec": SPEC}
    return Endpoint.model_validate(made | fields)


def test_an_etag_changes_with_the_wish_alone() -> None:
    etag = etag_of(endpoint())
    assert etag == etag_of(endpoint(state="healthy", running_units=3, revision="r"))
    assert len({etag, etag_of(endpoint(generation=2)), etag_of(endpoint(id="ep-2"))}) == 3


@pytest.mark.parametrize("if_match", [None, "*", "{}", '"{}"', 'W/"{}"', '"other", "{}"', "other,{}"])
def test_a_version_that_is_named_may_be_changed(if_match: str | None) -> None:
    etag = etag_of(endpoint())
    require_match(if_match and if_match.format(etag), etag)


@pytest.mark.parametrize("if_match", ["", '"other"', "other, another", '""'])
def test_another_version_may_not(if_match: str) -> None:
    with pytest.raises(Conflict, match="If-Match") as refused:
        require_match(if_match, etag_of(endpoint()))
    assert refused.value.body()["error"]["code"] == "etag_mismatch"  # type: ignore[index]
