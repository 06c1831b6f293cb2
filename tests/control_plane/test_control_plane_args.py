"""`args` of the control plane in a serve config."""

import pytest
from pydantic import ValidationError

from app.control_plane.args import ControlPlaneArgs

MODEL = {"model": "m-1"}


def test_endpoints_with_names_of_their_own_are_taken() -> None:
    args = ControlPlaneArgs.model_validate({"endpoints": [{"name": "a", **MODEL}, {"name": "A", **MODEL}]})
    assert [endpoint.name for endpoint in args.endpoints] == ["a", "A"]
    assert ControlPlaneArgs.model_validate_json(args.model_dump_json()) == args


def test_endpoints_of_one_name_are_refused_and_named() -> None:
    """One of the two would silently be lost."""
    named = [{"name": name, **MODEL} for name in ("one", "two", "three", "two", "one", "one")]
    with pytest.raises(ValidationError, match="declared more than once: one, two") as refused:
        ControlPlaneArgs.model_validate({"endpoints": named})
    assert refused.value.errors()[0]["loc"] == ("endpoints",)


def test_workspaces_have_room_for_much() -> None:
    args = ControlPlaneArgs()
    bounds = args.endpoints_per_workspace, args.models_per_workspace, args.unfinished_jobs_per_workspace
    assert bounds == (1000, 1000, 100)
