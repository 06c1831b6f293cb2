"""What units are told of the prefixes that they may share."""

from pathlib import Path

from app.control_plane.services.unit_specs import cache_salt
from app.settings import Settings
from app.unit.deployment import UnitSpec, launch_of
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import ONE_DATABASE, by_name, publish_model, spec


@ONE_DATABASE
def test_endpoints_of_one_workspace_share_prefixes_of_the_same_weights_only(
    open_platform: OpenPlatform, settings: Settings
) -> None:
    publish_model(settings, "m-2", "Model-2")
    platform = open_platform(spec("one"), spec("two"), spec("other", model="Model-2"))
    salts = {name: platform.units.of(endpoint).cache_salt for name, endpoint in by_name(platform).items()}
    assert salts["one"] == salts["two"] != salts["other"]
    assert all(salts.values())


def test_no_two_workspaces_share_any() -> None:
    assert len({cache_salt(workspace, digest) for workspace in ("a", "ab", "b") for digest in ("c", "bc")}) == 6


def test_the_engine_is_told_and_a_spec_from_before_has_none(tmp_path: Path) -> None:
    told = UnitSpec(
        endpoint_id="ep-1", weights="models/m/BF16/", digest="d", max_model_len=64, max_num_seqs=4, prefix_caching=True,
        enforce_eager=True, kv_cache_bytes=None, threads=None, cache_salt="salt",
    )  # fmt: skip
    assert launch_of(told, tmp_path / "engine.log").cache_salt == "salt"
    assert UnitSpec.model_validate(told.model_dump(exclude={"cache_salt"})).cache_salt == ""
