"""Scale ranges over the API and in serve configs: steps, tiers, and the worked examples of the product's documents."""

from typing import Any

import httpx
import pytest

from app.control_plane.platform import Platform
from app.core.findings import Facts
from app.core.records import Model
from app.core.specs import MachineType
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import ONE_DATABASE, FakeCluster, by_name, change, spec, until

pytestmark = ONE_DATABASE

STEP_4 = MachineType(name="npu-4", step=4, accelerator="H100", accelerator_count=1)
ANY_CARD = MachineType(name="gpu-1", accelerator_count=1)
FACTS = Facts(weights_bytes=15 << 30, parameters=7_600_000_000, kv_bytes_per_token=1 << 16)


@pytest.fixture
def platform(open_platform: OpenPlatform) -> Platform:
    return open_platform(machine_types=[STEP_4, ANY_CARD])


async def create(admin: httpx.AsyncClient, scale: dict[str, Any], **fields: Any) -> httpx.Response:
    body = {"name": "x", "model": "m-1", "machine_type": "npu-4", "scale": scale} | fields
    return await admin.post("/endpoints", json=body)


async def tiers_of(admin: httpx.AsyncClient, endpoint: dict[str, Any], **params: Any) -> dict[str, Any]:
    answer = await admin.get(f"/endpoints/{endpoint['id']}/tiers", params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_example_1_small_and_often_idle(admin: httpx.AsyncClient) -> None:
    """From 0 to 4 units, the tier by need, sleeping and waking."""
    for number, tier in enumerate(("low", "medium", "high")):
        made = await create(admin, {"min_units": 0, "max_units": 4, "tier": tier}, name=f"e{number}")
        assert made.status_code == 202, made.text
        assert made.json()["scale"]["tier"] == tier
    explicit = await create(admin, {"min_units": 0, "max_units": 4, "tier": "low", "idle_to_zero_s": 600}, name="e4")
    assert explicit.json()["scale"]["idle_to_zero_s"] == 600


async def test_example_2_steady_with_peaks_on_a_higher_tier(admin: httpx.AsyncClient) -> None:
    """4 units, which is one step, to 12, on the tier that takes on the most."""
    made = await create(admin, {"min_units": 4, "max_units": 12, "tier": "high"})
    assert made.status_code == 202, made.text
    found = await tiers_of(admin, made.json())
    assert (found["tier"], found["concurrency"], found["step"]) == ("high", 64, 4)
    assert [tier["concurrency"] for tier in found["tiers"]] == [4, 16, 64]


async def test_example_3_sized_by_tokens_a_second(admin: httpx.AsyncClient, platform: Platform) -> None:
    """4 to 8 units, from the tokens a second of a quiet hour and of the busiest one."""
    model = platform.registry.get(Model, "m-1")
    assert model
    change(platform, model, facts=FACTS)
    made = await create(admin, {"min_units": 4, "max_units": 8, "tier": "medium"})
    assert made.status_code == 202, made.text
    of_a_unit = (await tiers_of(admin, made.json()))["tiers"][1]
    assert of_a_unit["measured"] is False
    quiet, busiest = of_a_unit["tps"] * 3, of_a_unit["tps"] * 7
    sized = [(await tiers_of(admin, made.json(), tps=tps))["tiers"][1]["units"] for tps in (quiet, busiest)]
    assert sized == [4, 8]


async def test_a_type_is_chosen_whose_steps_the_range_is_in(open_platform: OpenPlatform) -> None:
    """Though another, which comes in pairs, is smaller."""
    pairs = MachineType(name="pairs", step=2, memory_bytes=4 << 30, cpus=0.1)
    platform = open_platform(machine_types=[pairs, MachineType(name="cpu-small", memory_bytes=8 << 30)])
    for units, chosen in ((4, "pairs"), (3, "cpu-small")):
        wish = spec(f"up-to-{units}", machine_type=None, scale={"min_units": 0, "max_units": units})
        assert platform.endpoints.create("default", wish).machine_type == chosen


@pytest.mark.parametrize(
    ("scale", "param", "nearest"),
    [
        ({}, "scale.min_units", "nearest: 0 or 4"),
        ({"min_units": 0, "max_units": 6}, "scale.max_units", "nearest: 4 or 8"),
        ({"min_units": 4, "max_units": 4, "target_concurrency": 65}, "scale.target_concurrency", "64 at once"),
    ],
)
async def test_what_is_not_in_steps_is_refused_with_the_nearest(
    admin: httpx.AsyncClient, scale: dict[str, Any], param: str, nearest: str
) -> None:
    answer = await create(admin, scale)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert nearest in error["message"]


async def test_a_patch_is_held_to_the_steps_and_changes_in_place(
    admin: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    made = (await create(admin, {"min_units": 0, "max_units": 4})).json()
    path = f"/endpoints/{made['id']}"
    until(lambda: cluster.deploys)
    refused = await admin.patch(path, json={"scale": {"max_units": 6}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "scale.max_units")
    changed = await admin.patch(
        path, json={"scale": {"max_units": 8, "tier": "low", "idle_to_zero_s": 20, "down_after_s": 5, "drain_s": 30}}
    )
    assert (changed.status_code, changed.json()["effect"]) == (200, "in_place"), changed.text
    awake = await admin.patch(path, json={"scale": {"min_units": 4}})
    assert (awake.status_code, awake.json()["error"]["message"]) == (
        400,
        "scale is an object. Value error, idle_to_zero_s needs min_units 0, and min_units is 4.",
    )
    awake = await admin.patch(path, json={"scale": {"min_units": 4, "idle_to_zero_s": None}})
    assert awake.status_code == 200, awake.text
    smaller = await admin.patch(path, json={"machine_type": "cpu-small", "scale": {"min_units": 1, "max_units": 3}})
    assert smaller.status_code == 200, smaller.text


async def test_a_serve_config_with_units_that_are_not_in_steps_says_so(platform: Platform) -> None:
    declared = spec("odd", machine_type="npu-4", scale={"min_units": 1, "max_units": 4})
    platform.declarations.declare([declared, spec("fine")])
    until(lambda: by_name(platform)["odd"].state == "abnormal")
    assert "min_units is 1, but units of npu-4 come in steps of 4; nearest: 0 or 4" in by_name(platform)["odd"].reason
    until(lambda: by_name(platform)["fine"].state == "healthy")


async def test_tiers_of_a_model_that_nobody_has_measured_are_not_made_up(admin: httpx.AsyncClient) -> None:
    made = await create(admin, {"min_units": 1, "max_units": 1, "target_concurrency": 7}, machine_type="gpu-1")
    found = await tiers_of(admin, made.json(), tps=100)
    assert (found["tier"], found["concurrency"]) == (None, 7)
    for tier in found["tiers"]:
        assert (tier["ttft_ms"], tier["tps"], tier["units"], tier["measured"]) == (None, None, None, False)
    assert found["basis"] == {"prompt_tokens": 3000, "completion_tokens": 300, "cache_hit_pct": 0}


async def test_tiers_of_a_machine_type_that_is_declared_no_more(admin: httpx.AsyncClient, platform: Platform) -> None:
    made = (await create(admin, {"min_units": 4, "max_units": 4})).json()
    endpoint = platform.endpoints.get("default", made["id"])
    change(platform, endpoint, machine_type="gone")
    answer = await admin.get(f"/endpoints/{made['id']}/tiers")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
