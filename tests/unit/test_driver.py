"""A unit starts only on a node with the driver that its machine type names."""

import ctypes
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import EngineStartError
from app.unit import deployment
from app.unit.accelerators import driver_version
from app.unit.deployment import UnitSpec, check_driver, launch_of
from app.unit.engine import Simulation

SPEC = UnitSpec(
    endpoint_id="ep-1", weights="w", digest="d", max_model_len=64, max_num_seqs=1, prefix_caching=False,
    enforce_eager=True, kv_cache_bytes=None, threads=1, driver="580.65.06", simulation=Simulation(),
)  # fmt: skip


class Nvml:
    """As much of NVML as is asked."""

    def __init__(self, version: bytes, failed: int = 0):
        self._version, self._failed = version, failed

    def nvmlSystemGetDriverVersion(self, told: Any, length: ctypes.c_uint) -> int:
        assert length.value == 80
        told.value = self._version
        return self._failed


def test_the_driver_tells_its_version():
    assert driver_version(Nvml(b"580.65.06")) == "580.65.06"
    assert driver_version(Nvml(b"", failed=1)) is None


@pytest.mark.parametrize(("found", "said"), [("580.65.07", "this node has 580.65.07"), (None, "this node has none")])
def test_another_driver_is_an_engine_that_cannot_start(monkeypatch: pytest.MonkeyPatch, found: str | None, said: str):
    monkeypatch.setattr(deployment, "driver_version", lambda: found)
    with pytest.raises(EngineStartError) as caught:
        check_driver(SPEC)
    reason = EngineStartError.reason_in(str(caught.value))
    assert reason
    assert "needs the accelerator driver 580.65.06" in reason
    assert said in reason


def test_the_named_driver_and_no_name_are_fine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(deployment, "driver_version", lambda: "580.65.06")
    check_driver(SPEC)
    monkeypatch.setattr(deployment, "driver_version", lambda: pytest.fail("nobody needs to know"))
    check_driver(SPEC.model_copy(update={"driver": None}))


def test_a_unit_over_machines_tells_its_engine_where_its_workers_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(deployment, "own_placement_group", lambda: "ab" * 18)
    monkeypatch.setattr(deployment, "cluster_environment", lambda: {"RAY_ADDRESS": "10.0.0.1:6379"})
    spread = {"driver": None, "cards": 4, "machines": 2, "tensor_parallel_size": 4, "pipeline_parallel_size": 2}
    launch = launch_of(SPEC.model_copy(update=spread), tmp_path / "log")
    assert (launch.executor, launch.ranks, launch.placement_group) == ("ray", 8, "ab" * 18)
    assert launch.environment["RAY_ADDRESS"] == "10.0.0.1:6379"
    one = launch_of(SPEC.model_copy(update={**spread, "machines": 1}), tmp_path / "log")
    assert (one.executor, one.placement_group) == ("mp", None)
    assert "RAY_ADDRESS" not in one.environment
    assert launch_of(SPEC, tmp_path / "log").executor is None


def test_an_engine_sees_the_cards_of_its_unit_and_without_any_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with_cards = launch_of(SPEC.model_copy(update={"cards": 2}), tmp_path / "log")
    assert with_cards.environment["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert launch_of(SPEC, tmp_path / "log").environment["CUDA_VISIBLE_DEVICES"] == ""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert launch_of(SPEC, tmp_path / "log").environment["CUDA_VISIBLE_DEVICES"] == ""


def test_a_placement_group_by_its_id():
    from app.unit.multi_machine import placement_group

    group = placement_group("ab" * 18, 3)
    assert group.id.hex() == "ab" * 18
    assert group.bundle_specs == [{"GPU": 1.0}] * 3
