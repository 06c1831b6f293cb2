"""Machine types: declared, listed, chosen, refused, and bounded by quotas."""

from typing import Any

import httpx
import pytest

from app.control_plane.platform import Platform
from app.core.errors import Conflict, InvalidField
from app.core.findings import Facts
from app.core.keys import issue_key
from app.core.records import Endpoint, Model, Version
from app.core.specs import MachineType
from app.core.waiting import Room
from app.settings import Settings
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import (
    ONE_DATABASE,
    FakeCluster,
    admin_key,
    by_name,
    change,
    client_of,
    spec,
    until,
)

GIB = 1 << 30
L4 = MachineType(name="l4", accelerator="L4", accelerator_count=1, accelerator_memory_bytes=24 * GIB, quota=3)
SMALL = MachineType(name="cpu-small", memory_bytes=4 * GIB, kv_cache_bytes=GIB, enforce_eager=True)
BIG = Facts(weights_bytes=10 * GIB, parameters=5 * GIB, kv_bytes_per_token=1 << 16)


@pytest.fixture
def platform(open_platform: OpenPlatform) -> Platform:
    return open_platform(machine_types=[L4, SMALL])


def with_facts(platform: Platform, facts: Facts) -> None:
    model = platform.registry.get(Model, "m-1")
    assert model
    change(platform, model, facts=facts)


async def refused(admin: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await admin.post("/endpoints", json={"name": "x", "model": "m-1"} | fields)
    assert answer.status_code in (400, 409), answer.text
    return {"status": answer.status_code, **answer.json()["error"]}


async def test_built_in_and_declared_types_are_listed(admin: httpx.AsyncClient, cluster: FakeCluster) -> None:
    cluster.nodes = [Room({"CPU": 2.0}, {"CPU": 1.0}), Room({"CPU": 8.0, "GPU": 2.0, "accelerator_type:L4": 1.0}, {})]
    body = (await admin.get("/machine-types")).json()
    found = {one["id"]: one for one in body["data"]}
    assert list(found) == ["cpu-small", "gpu-1", "l4"]
    assert found["cpu-small"]["memory_bytes"] == 4 * GIB  # instead of the built-in one
    assert found["l4"]["quota"] == 3
    assert found["l4"]["used"] == 0
    assert found["l4"]["cluster"] == {"units": 2, "free": 0}
    assert found["cpu-small"]["cluster"] == {"units": 40, "free": 4}
    assert "fit" not in found["l4"]
    assert (await admin.get("/machine-types/l4")).json() == found["l4"]
    assert (await admin.get("/machine-types/l5")).status_code == 404


@ONE_DATABASE
async def test_a_cluster_that_does_not_tell_hides_nothing_else(admin: httpx.AsyncClient) -> None:
    assert (await admin.get("/machine-types/l4")).json()["cluster"] is None


async def test_the_list_says_what_fits(admin: httpx.AsyncClient, platform: Platform) -> None:
    asked = {"base_model": "Llama2-7B", "precision": "W4A8"}
    found = (await admin.get("/machine-types", params=asked)).json()["data"]
    fits = {one["id"]: one["fit"] for one in found}
    assert not fits["l4"]["ok"]
    assert "Hopper" in fits["l4"]["reasons"][0]
    assert fits["gpu-1"]["ok"]
    assert fits["gpu-1"]["mode"] == {"machines": 1, "tensor_parallel_size": 1, "pipeline_parallel_size": 1}
    with_facts(platform, BIG)
    one = (await admin.get("/machine-types/cpu-small", params={"model": "Model-1"})).json()["fit"]
    assert "10.0 GiB" in one["reasons"][0]
    for wrong in ({"base_model": "no such"}, {"base_model": "Llama2-7B", "model": "m-1"}, {"precision": "FP1"}):
        assert (await admin.get("/machine-types", params=wrong)).status_code == 400
    assert (await admin.get("/machine-types", params={"model": "nothing"})).status_code == 404


@ONE_DATABASE
async def test_strangers_see_no_machine_types(client_for: Any) -> None:
    assert (await client_for(issue_key()).get("/machine-types")).status_code == 401


async def test_a_named_type_that_cannot_hold_the_model_is_refused(admin: httpx.AsyncClient, platform: Platform) -> None:
    with_facts(platform, BIG)
    error = await refused(admin, machine_type="cpu-small", max_model_len=2048)
    assert (error["status"], error["param"]) == (400, "machine_type")
    assert "11.0 GiB" in error["message"]
    assert "4.0 GiB" in error["message"]
    assert platform.endpoints.find("default") == []


async def test_without_a_type_the_smallest_that_fits_is_taken(admin: httpx.AsyncClient, platform: Platform) -> None:
    small = (await admin.post("/endpoints", json={"name": "small", "model": "m-1"})).json()
    with_facts(platform, BIG)
    big = (await admin.post("/endpoints", json={"name": "big", "model": "m-1", "max_model_len": 2048})).json()
    assert (small["machine_type"], big["machine_type"]) == ("cpu-small", "l4")
    assert "not cpu-small: a unit needs 11.0 GiB" in big["placement"]
    with_facts(platform, BIG.model_copy(update={"weights_bytes": 900 * GIB, "parameters": 450 * GIB}))
    unlike = (await admin.post("/endpoints", json={"name": "any", "model": "m-1", "max_model_len": 2048})).json()
    assert unlike["machine_type"] == "gpu-1"  # of which the memory is not known


async def test_on_a_machine_with_cards_an_endpoint_gets_one(admin: httpx.AsyncClient, cluster: FakeCluster) -> None:
    cluster.nodes = [Room({"CPU": 8.0, "GPU": 1.0, "accelerator_type:L4": 1.0}, {"CPU": 8.0})]
    endpoint = (await admin.post("/endpoints", json={"name": "demo", "model": "m-1"})).json()
    assert (endpoint["machine_type"], "cards come before CPUs" in endpoint["placement"]) == ("l4", True)
    named = {"name": "small", "model": "m-1", "machine_type": "cpu-small"}
    assert (await admin.post("/endpoints", json=named)).json()["machine_type"] == "cpu-small"


async def test_what_nothing_can_serve_is_refused_with_every_reason(open_platform: OpenPlatform) -> None:
    gpu = MachineType(name="gpu-1", accelerator="T4", accelerator_count=1, accelerator_memory_bytes=16 * GIB)
    platform = open_platform(machine_types=[SMALL, gpu])
    with_facts(platform, BIG.model_copy(update={"weights_bytes": 90 * GIB, "parameters": 45 * GIB}))
    with pytest.raises(InvalidField, match=r"cpu-small: .*90\.0 GiB.*; gpu-1: .*90\.\d GiB"):
        platform.endpoints.create("default", spec("one"))


async def test_a_quota_bounds_what_may_run(admin: httpx.AsyncClient, platform: Platform) -> None:
    async def create(name: str, units: int) -> httpx.Response:
        wish = {"name": name, "model": "m-1", "machine_type": "l4", "scale": {"min_units": 1, "max_units": units}}
        return await admin.post("/endpoints", json=wish)

    first = (await create("one", 2)).json()
    refusal = await create("two", 2)
    assert refusal.status_code == 409
    assert refusal.json()["error"] == {
        "message": "This workspace may have 3 units of l4; other endpoints may take 2 already, and this one asks for 2 "
        "(scale.max_units).",
        "type": "conflict_error",
        "param": "scale.max_units",
        "code": "quota_exceeded",
    }
    second = (await create("two", 1)).json()
    assert (await admin.get("/machine-types/l4")).json()["used"] == 3
    wider = await admin.patch(f"/endpoints/{second['id']}", json={"scale": {"max_units": 2}})
    assert (wider.status_code, wider.json()["error"]["code"]) == (409, "quota_exceeded")
    assert (await admin.patch(f"/endpoints/{first['id']}", json={"scale": {"max_units": 1}})).status_code == 200
    assert (await admin.patch(f"/endpoints/{second['id']}", json={"scale": {"max_units": 2}})).status_code == 200
    assert (await admin.post(f"/endpoints/{second['id']}:stop")).status_code == 202
    assert (await create("three", 2)).status_code == 202  # what is stopped holds nothing
    again = await admin.post(f"/endpoints/{second['id']}:start")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "quota_exceeded")


def test_other_workspaces_and_the_serve_config_have_their_own_measure(open_platform: OpenPlatform) -> None:
    declared = spec("declared", machine_type="l4", scale={"min_units": 1, "max_units": 9})
    platform = open_platform(declared, machine_types=[L4])
    assert platform.machines.used("default", "l4") == 9
    assert platform.machines.used("other", "l4") == 0
    with pytest.raises(Conflict, match="other endpoints may take 9"):
        platform.endpoints.create("default", spec("one", machine_type="l4"))


def test_what_is_declared_on_a_type_that_cannot_hold_it_says_so(open_platform: OpenPlatform) -> None:
    platform = open_platform(machine_types=[SMALL])
    with_facts(platform, BIG)
    platform.declarations.declare([spec("big", machine_type="cpu-small", max_model_len=2048), spec("free")])
    until(lambda: by_name(platform)["big"].state == "abnormal")
    assert "machine_type cpu-small cannot serve this: a unit needs" in by_name(platform)["big"].reason
    assert by_name(platform)["free"].machine_type == "gpu-1"


def test_what_the_platform_chose_stays_while_it_fits(open_platform: OpenPlatform, cluster: FakeCluster) -> None:
    platform = open_platform(machine_types=[L4, SMALL])
    endpoint = platform.endpoints.create("default", spec("one"))
    assert endpoint.machine_type == "cpu-small"
    cluster.nodes = [Room({"CPU": 8.0, "GPU": 1.0, "accelerator_type:L4": 1.0}, {})]
    wider = platform.endpoints.patch("default", endpoint.id, {"scale": {"max_units": 2}})
    assert (wider.endpoint.machine_type, wider.effect) == ("cpu-small", "in_place")
    with_facts(platform, BIG)
    longer = platform.endpoints.patch("default", endpoint.id, {"max_model_len": 2048})
    assert (longer.endpoint.machine_type, longer.effect) == ("l4", "rolling")


@ONE_DATABASE
def test_units_are_told_how_they_are_spread(open_platform: OpenPlatform) -> None:
    modes = [
        {"machines": 1, "tensor_parallel_size": 2},
        {"machines": 2, "tensor_parallel_size": 2, "pipeline_parallel_size": 2},
    ]
    two = MachineType.model_validate(
        {
            "name": "two", "accelerator": "L4", "accelerator_count": 2, "accelerator_memory_bytes": 24 * GIB,
            "modes": modes, "driver": "580.1",
        }
    )  # fmt: skip
    platform = open_platform(machine_types=[two])
    one = platform.endpoints.create("default", spec("one", machine_type="two", max_model_len=2048))
    told = platform.units.of(one)
    assert (told.machines, told.tensor_parallel_size, told.pipeline_parallel_size) == (1, 2, 1)
    assert (told.executor, told.driver, told.cards) == ("mp", "580.1", 2)
    assert platform.units.placement(one, told)["ray_actor_options"]["num_gpus"] == 2
    before = platform.units.revision(one, told)
    with_facts(platform, BIG.model_copy(update={"weights_bytes": 60 * GIB, "parameters": 30 * GIB}))
    told = platform.units.of(one)
    assert (told.machines, told.pipeline_parallel_size, told.executor) == (2, 2, "ray")
    assert platform.units.placement(one, told)["placement_group_strategy"] == "PACK"
    assert platform.units.revision(one, told) != before


@ONE_DATABASE
def test_machine_memory_for_validation(open_platform: OpenPlatform) -> None:
    assert open_platform(machine_types=[L4, SMALL]).machines.memory() == []  # gpu-1 may have any
    gpu = L4.model_copy(update={"name": "gpu-1"})
    known = open_platform(machine_types=[gpu, SMALL]).machines.memory()
    assert {one.name: one.memory_bytes for one in known} == {"cpu-small": 4 * GIB, "gpu-1": int(24 * GIB * 0.92)}


def test_an_endpoint_waits_for_its_model_and_says_how_far_it_is(open_platform: OpenPlatform) -> None:
    platform = open_platform()
    model, version = platform.registry.get(Model, "m-1"), platform.registry.get(Version, "m-1:BF16")
    assert model
    assert version
    preparing = model.model_copy(update={"id": "m-2", "name": "Model-2", "state": "preparing", "workspace": "default"})
    making = version.model_copy(update={"id": "m-2:BF16", "model_id": "m-2", "state": "creating"})
    platform.registry.put(preparing, making)
    job = platform.jobs.new("upload", preparing, {})
    platform.registry.put(job.model_copy(update={"state": "stopping", "progress": 0.4}))
    endpoint = platform.endpoints.create("default", spec("early", model="Model-2"))

    def reason_is(reason: str) -> bool:
        found = platform.registry.get(Endpoint, endpoint.id)
        return found is not None and (found.state, found.reason) == ("scheduling", reason)

    until(lambda: reason_is("its model is preparing (waiting for a job)"))
    change(platform, preparing, state="failed", reason="no weights")
    platform.endpoint_loop.nudge()
    until(lambda: by_name(platform)["early"].state == "abnormal")
    assert by_name(platform)["early"].reason == "Model Model-2 in BF16 is failed: no weights."
    with pytest.raises(Conflict):
        platform.endpoints.create("default", spec("late", model="Model-2"))
    change(platform, making, state="healthy")
    change(platform, preparing, state="healthy", reason="")
    platform.endpoint_loop.nudge()
    until(lambda: by_name(platform)["early"].state == "healthy")


async def test_a_workspace_may_have_a_quota_of_its_own(
    open_platform: OpenPlatform, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    theirs, _, key = open_platform().workspaces.create("theirs")
    quotas = {"default": 2, theirs.id: 5, "misspelled": 9}
    with caplog.at_level("WARNING", "ray.serve"):
        platform = open_platform(machine_types=[L4.model_copy(update={"quota": 1, "quotas": quotas})])
    assert [r.getMessage() for r in caplog.records if "quota" in r.getMessage()] == [
        "machine type l4 has a quota for misspelled, and there is no such workspace"
    ]
    for caller, quota in ((admin_key(settings), 2), (key, 5)):
        async with client_of(platform, caller) as client:
            shown = (await client.get("/machine-types/l4")).json()
        assert shown["quota"] == quota
        assert "quotas" not in shown  # others' are nobody's business
    platform.endpoints.create("default", spec("one", machine_type="l4", scale={"min_units": 1, "max_units": 2}))
    with pytest.raises(Conflict, match="may have 2 units of l4"):
        platform.endpoints.create("default", spec("two", machine_type="l4"))


def test_what_is_above_a_lowered_quota_may_shrink_and_not_grow(open_platform: OpenPlatform) -> None:
    def with_quota(quota: int) -> Platform:
        return open_platform(machine_types=[L4.model_copy(update={"quota": quota})])

    platform = with_quota(9)
    wide = spec("one", machine_type="l4", scale={"min_units": 1, "max_units": 8})
    endpoint = platform.endpoints.create("default", wide).id
    platform.endpoints.create("default", spec("two", machine_type="l4"))
    platform = with_quota(2)
    for fields in ({"scale": {"max_units": 5}}, {"max_model_len": 64}, {"scale": {"min_units": 2}}):
        platform.endpoints.patch("default", endpoint, fields)
    with pytest.raises(Conflict, match="may have 2 units"):
        platform.endpoints.patch("default", endpoint, {"scale": {"max_units": 6}})
    platform.endpoints.stop("default", endpoint)
    with pytest.raises(Conflict, match="may have 2 units"):
        platform.endpoints.start("default", endpoint)  # what is stopped holds nothing, so this is growth


async def test_an_endpoint_takes_as_long_requests_as_its_model_unless_it_says_otherwise(
    admin: httpx.AsyncClient, platform: Platform
) -> None:
    model = platform.registry.get(Model, "m-1")
    assert model
    made = (await admin.post("/endpoints", json={"name": "x", "model": "m-1"})).json()
    assert made["max_model_len"] == 4096  # of a base model that the catalogue does not know

    async def told() -> int:
        endpoint = platform.endpoints.get("default", made["id"])
        shown = (await admin.get(f"/endpoints/{endpoint.id}")).json()["max_model_len"]
        assert platform.units.of(endpoint).max_model_len == shown
        return int(shown)

    change(platform, model, base_model="Qwen2-72B-32K")
    assert await told() == 32_768
    change(platform, model, base_model="Qwen2-72B-32K", facts=Facts(max_length_tokens=2048))
    assert await told() == 2048  # the weights were made for less
    await admin.patch(f"/endpoints/{made['id']}", json={"max_model_len": 512})
    assert await told() == 512
    await admin.patch(f"/endpoints/{made['id']}", json={"max_model_len": None})
    assert await told() == 2048
