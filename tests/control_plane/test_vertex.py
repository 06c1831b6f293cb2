"""Deploying and looking at endpoints as Vertex AI has it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.catalog.catalog import Catalog
from app.control_plane.platform import Platform
from app.core.job_specs import JobOutcome
from app.core.model_specs import Source
from app.core.records import DEFAULT_WORKSPACE, Endpoint, Job
from app.core.specs import MachineType
from app.settings import Settings
from app.store.folders import fingerprint
from app.store.layout import job_object, version_prefix
from app.store.objects import open_store
from app.store.sources import open_source
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import ONE_DATABASE, FakeCluster, admin_key, client_of, spec, until

PLACE = "projects/mine/locations/here"
BASE = "SmolLM2-135M-Instruct"


@pytest.fixture
def vertex(platform: Platform, settings: Settings) -> httpx.AsyncClient:
    """Calls with the admin's key below /v1beta1/projects/mine/locations/here."""
    return client(platform, admin_key(settings))


def client(platform: Platform, key: str) -> httpx.AsyncClient:
    return client_of(platform, key, "http://test/v1beta1/")


@pytest.fixture
def weights(tmp_path: Path) -> Callable[..., str]:
    """Makes a folder with a config.json, and says where it is."""

    def make(name: str = "mine", **changes: Any) -> str:
        entry = Catalog.load().find(BASE)
        assert entry
        folder = tmp_path / name
        folder.mkdir()
        config = {"architectures": [entry.architectures[0]], "max_position_embeddings": 2048, **entry.structure}
        (folder / "config.json").write_text(json.dumps(config | changes))
        return folder.as_uri()

    return make


async def test_a_folder_becomes_a_model_and_an_endpoint(
    vertex: httpx.AsyncClient, platform: Platform, weights: Callable[..., str]
) -> None:
    uri = weights()
    answer = await vertex.post(f"{PLACE}:deploy", json={"customModel": {"gcsUri": uri}})
    operation = answer.json()
    assert answer.status_code == 200, answer.text
    endpoint_id = operation["metadata"]["endpoint"].removeprefix(f"{PLACE}/endpoints/")
    assert operation["name"] == f"{PLACE}/operations/deploy-{endpoint_id}"
    assert operation["done"] is False
    endpoint = platform.endpoints.get(DEFAULT_WORKSPACE, endpoint_id)
    model = platform.models.get(DEFAULT_WORKSPACE, endpoint.spec.model)
    assert operation["metadata"]["model"] == f"{PLACE}/models/{model.id}"
    assert (model.name, model.base_model, endpoint.spec.name) == ("mine", BASE, "mine")
    assert model.spec
    assert model.spec.source
    assert model.spec.source.uri == uri
    assert endpoint.spec.max_model_len is None  # what the model takes
    assert endpoint.placement
    until(lambda: platform.endpoints.get(DEFAULT_WORKSPACE, endpoint_id).reason.startswith("its model is preparing"))
    again = (await vertex.get(operation["name"])).json()
    assert again["done"] is False
    assert "preparing" in again["metadata"]["reason"]
    # The same folder again is the same model, under another endpoint.
    second = (await vertex.post(f"{PLACE}:deploy", json={"custom_model": {"gcs_uri": uri}})).json()
    assert second["metadata"]["model"] == operation["metadata"]["model"]
    assert second["metadata"]["endpoint"] != operation["metadata"]["endpoint"]
    assert [one.id for one in platform.models.find(DEFAULT_WORKSPACE) if one.spec] == [model.id]


@pytest.mark.parametrize("spelling", ["snake", "camel"])
async def test_every_field_in_either_spelling(
    vertex: httpx.AsyncClient, platform: Platform, weights: Callable[..., str], spelling: str
) -> None:
    body: dict[str, Any] = {
        "custom_model": {"gcs_uri": weights()},
        "model_config": {"model_user_id": "my-model"},
        "destination": PLACE,
        "deploy_config": {
            "dedicated_resources": {
                "machine_spec": {"machine_type": "gpu-1", "accelerator_type": "NONE", "accelerator_count": 1},
                "min_replica_count": 0,
                "max_replica_count": 3,
            }
        },
        "endpoint_config": {
            "endpoint_display_name": "my-endpoint",
            "private_service_connect_config": {
                "enable_private_service_connect": True,
                "project_allowlist": ["10.0.0.0/8"],
            },
        },
    }
    if spelling == "camel":
        body = camel(body)
    answer = await vertex.post(f"{PLACE}:deploy", json=body)
    assert answer.status_code == 200, answer.text
    (endpoint,) = platform.endpoints.find(DEFAULT_WORKSPACE)
    assert endpoint.spec.name == "my-endpoint"
    assert (endpoint.machine_type, endpoint.placement) == ("gpu-1", "")
    assert (endpoint.spec.scale.min_units, endpoint.spec.scale.max_units) == (0, 3)
    assert endpoint.spec.allowed_networks == ("10.0.0.0/8",)
    assert platform.models.get(DEFAULT_WORKSPACE, "my-model").id == endpoint.spec.model


def camel(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        name.split("_")[0] + "".join(part.title() for part in name.split("_")[1:]): camel(inner)
        for name, inner in value.items()
    }


@ONE_DATABASE
@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"custom_model": {}}, "custom_model.gcs_uri"),
        ({"custom_model": {"gcs_uri": "gs://bucket/mine"}}, "custom_model.gcs_uri"),
        ({"custom_model": {"gcs_uri": "ftp://bucket/mine"}}, "custom_model.gcs_uri"),
        ({"custom_model": {"gcs_uri": "file:///no/such/folder"}}, "custom_model.gcs_uri"),
        ({"custom_model": {"gcs_uri": 7}}, "custom_model.gcs_uri"),
        ({"colour": "red"}, "colour"),
        ({"destination": "projects/other/locations/here"}, "destination"),
        ({"model_config": {"model_user_id": "7"}}, "model_config.model_user_id"),
        (
            {"deploy_config": {"dedicated_resources": {"machine_spec": {"machine_type": "cpu-small"}}}},
            "machine_spec.acceleratorType",
        ),
        (
            {"deploy_config": {"dedicated_resources": {"min_replica_count": 3, "max_replica_count": 2}}},
            "deploy_config.dedicated_resources.max_replica_count",
        ),
        (
            {"endpoint_config": {"private_service_connect_config": {"enable_private_service_connect": True}}},
            "endpoint_config.private_service_connect_config",
        ),
        ({"endpoint_config": {"endpoint_display_name": "a.b"}}, "endpoint_config.endpoint_display_name"),
    ],
)
async def test_a_wrong_wish_is_refused_by_field(
    vertex: httpx.AsyncClient, platform: Platform, weights: Callable[..., str], change: dict[str, Any], param: str
) -> None:
    answer = await vertex.post(f"{PLACE}:deploy", json={"custom_model": {"gcs_uri": weights()}} | change)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert platform.endpoints.find(DEFAULT_WORKSPACE) == []


@ONE_DATABASE
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 1}, "does not tell which base model"),
        ({"architectures": ["Unknown"]}, "No base model of the catalogue"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized in a way"),
        ({"quantization_config": 5}, "quantized in a way"),
    ],
)
async def test_weights_of_which_nothing_is_known_are_refused(
    vertex: httpx.AsyncClient, weights: Callable[..., str], changes: dict[str, Any], said: str
) -> None:
    answer = await vertex.post(f"{PLACE}:deploy", json={"custom_model": {"gcs_uri": weights(**changes)}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "custom_model.gcs_uri")
    assert said in answer.json()["error"]["message"]


async def test_models_of_one_shape_are_told_apart_by_name_or_asked_for(
    vertex: httpx.AsyncClient, platform: Platform, weights: Callable[..., str]
) -> None:
    catalog = platform.catalog
    shapes: dict[Any, list[Any]] = {}
    for entry in catalog.entries:
        if entry.structure and "BF16" in entry.upload_precisions:
            shapes.setdefault((entry.architectures, tuple(sorted(entry.structure.items()))), []).append(entry)
    twins = next(entries for entries in shapes.values() if len(entries) > 1)
    shape = {"architectures": [twins[0].architectures[0]], **twins[0].structure}
    for gone in set(catalog.find(BASE).structure) - set(shape):  # type: ignore[union-attr]
        shape[gone] = None
    answer = await vertex.post(f"{PLACE}:deploy", json={"custom_model": {"gcs_uri": weights("unnamed", **shape)}})
    message = answer.json()["error"]["message"]
    assert answer.status_code == 400
    assert all(entry.base_model in message for entry in twins[:10])
    assert "custom_model.base_model" in message
    named = {"gcs_uri": weights("other", **shape), "base_model": twins[1].base_model}
    assert (await vertex.post(f"{PLACE}:deploy", json={"custom_model": named})).status_code == 200
    by_folder = {"gcs_uri": weights(twins[1].base_model, **shape)}
    assert (await vertex.post(f"{PLACE}:deploy", json={"custom_model": by_folder})).status_code == 200
    made = [model.base_model for model in platform.models.find(DEFAULT_WORKSPACE) if model.spec]
    assert made == [twins[1].base_model] * 2


async def test_a_model_that_is_there_is_deployed_by_its_name(vertex: httpx.AsyncClient, platform: Platform) -> None:
    operation = (await vertex.post(f"{PLACE}:deploy", json={"custom_model": {"model_id": "Model-1"}})).json()
    assert operation["metadata"]["model"] == f"{PLACE}/models/m-1"
    endpoint_id = operation["metadata"]["endpoint"].rpartition("/")[2]
    until(lambda: platform.endpoints.get(DEFAULT_WORKSPACE, endpoint_id).state == "healthy")
    done = (await vertex.get(operation["name"])).json()
    assert done["done"] is True
    assert done["response"]["endpoint"] == f"{PLACE}/endpoints/{endpoint_id}"
    shown = (await vertex.get(f"{PLACE}/endpoints/{endpoint_id}")).json()
    assert set(shown) == {
        "name", "displayName", "deployedModels", "trafficSplit", "etag", "createTime", "updateTime",
        "privateServiceConnectConfig", "dedicatedEndpointEnabled", "dedicatedEndpointDns",
    }  # fmt: skip
    (deployed,) = shown["deployedModels"]
    assert set(deployed) == {
        "id", "model", "displayName", "createTime", "dedicatedResources", "enableContainerLogging", "privateEndpoints",
        "modelVersionId", "status",
    }  # fmt: skip
    assert shown["trafficSplit"] == {deployed["id"]: 100}
    assert deployed["dedicatedResources"] == {
        "machineSpec": {
            "machineType": "cpu-small",
            "acceleratorType": "ACCELERATOR_TYPE_UNSPECIFIED",
            "acceleratorCount": 0,
        },
        "minReplicaCount": 1,
        "maxReplicaCount": 1,
    }
    assert deployed["status"]["availableReplicaCount"] == 1
    assert deployed["privateEndpoints"] == {"serviceAttachment": None}
    assert shown["privateServiceConnectConfig"] == {"enablePrivateServiceConnect": False, "projectAllowlist": []}
    platform_etag = (await vertex.get("http://test/v1/endpoints/" + endpoint_id)).json()["etag"]
    assert shown["etag"] == platform_etag


async def test_an_endpoints_own_address_is_where_callers_reach_the_platform(
    vertex: httpx.AsyncClient, platform: Platform, settings: Settings
) -> None:
    endpoint = platform.endpoints.create(DEFAULT_WORKSPACE, spec("one"))
    listens_on = f"{settings.http_host}:{settings.http_port}"
    for told, shown in (("models.example.com:8443", "models.example.com:8443"), ("a b", listens_on)):
        headers = {"x-forwarded-host": told}
        one = (await vertex.get(f"{PLACE}/endpoints/{endpoint.id}", headers=headers)).json()
        (listed,) = (await vertex.get(f"{PLACE}/endpoints", headers=headers)).json()["endpoints"]
        assert one == listed
        assert (one["dedicatedEndpointEnabled"], one["dedicatedEndpointDns"]) == (True, shown)


async def test_an_operation_that_cannot_end_well_says_why(
    vertex: httpx.AsyncClient, platform: Platform, cluster: FakeCluster
) -> None:
    operation = (await vertex.post(f"{PLACE}:deploy", json={"custom_model": {"model_id": "m-1"}})).json()
    endpoint_id = operation["metadata"]["endpoint"].rpartition("/")[2]
    until(lambda: platform.endpoints.get(DEFAULT_WORKSPACE, endpoint_id).state == "healthy")
    cluster.becomes(endpoint_id, "failed", "not enough memory")
    platform.endpoint_loop.nudge()
    until(lambda: platform.endpoints.get(DEFAULT_WORKSPACE, endpoint_id).state == "abnormal")
    ended = (await vertex.get(operation["name"])).json()
    assert (ended["done"], ended["error"]) == (True, {"code": 9, "message": "not enough memory"})


async def test_endpoints_in_pages(vertex: httpx.AsyncClient, platform: Platform) -> None:
    made: list[Endpoint] = [platform.endpoints.create(DEFAULT_WORKSPACE, spec(f"e{n}")) for n in range(3)]
    first = (await vertex.get(f"{PLACE}/endpoints", params={"pageSize": 2})).json()
    rest = (await vertex.get(f"{PLACE}/endpoints", params={"pageToken": first["nextPageToken"]})).json()
    names = [one["name"] for one in first["endpoints"] + rest["endpoints"]]
    assert names == [f"{PLACE}/endpoints/{endpoint.id}" for endpoint in made]
    assert rest["nextPageToken"] == ""
    assert (await vertex.get(f"{PLACE}/endpoints", params={"pageToken": "x"})).status_code == 400


async def test_a_repeated_deploy_with_one_key_is_one_endpoint(vertex: httpx.AsyncClient, platform: Platform) -> None:
    wish = {"custom_model": {"model_id": "m-1"}}
    made = [
        (await vertex.post(f"{PLACE}:deploy", json=wish, headers={"idempotency-key": "k"})).json()["name"]
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert len(platform.endpoints.find(DEFAULT_WORKSPACE)) == 1


async def test_who_may_deploy_what(platform: Platform, weights: Callable[..., str]) -> None:
    endpoint = platform.endpoints.create(DEFAULT_WORKSPACE, spec("one"))
    other = platform.endpoints.create(DEFAULT_WORKSPACE, spec("two"))
    _, caller = platform.keys.issue(DEFAULT_WORKSPACE, "inference", "")
    assert (await client(platform, caller).get(f"{PLACE}/endpoints")).status_code == 403
    _, developer = platform.keys.issue(DEFAULT_WORKSPACE, "developer", "")
    outside = await client(platform, developer).post(f"{PLACE}:deploy", json={"custom_model": {"gcs_uri": weights()}})
    assert outside.status_code == 403  # a folder that only an admin may name
    _, narrow = platform.keys.issue(DEFAULT_WORKSPACE, "developer", "", endpoints=(endpoint.id,))
    limited = client(platform, narrow)
    assert [one["displayName"] for one in (await limited.get(f"{PLACE}/endpoints")).json()["endpoints"]] == ["one"]
    assert (await limited.get(f"{PLACE}/endpoints/{endpoint.id}")).status_code == 200
    for hidden in (f"endpoints/{other.id}", f"operations/deploy-{other.id}", f"operations/{endpoint.id}"):
        assert (await limited.get(f"{PLACE}/{hidden}")).status_code == 404
    assert (await limited.post(f"{PLACE}:deploy", json={"custom_model": {"model_id": "m-1"}})).status_code == 403


def ends(platform: Platform, type: str, model_id: str, outcome: JobOutcome) -> None:
    """The model's job of this type ends so."""

    def one() -> Job | None:
        jobs = [job for job in platform.jobs.of_model(model_id) if job.type == type and job.attempts]
        return jobs[-1] if jobs else None

    name = job_object(until(one).id, "outcome.json")
    open_store(platform.settings).write(name, outcome.model_dump_json().encode())
    platform.job_loop.nudge()


def imported(platform: Platform, model_id: str, uri: str) -> None:
    """The model is validated and copied from the folder as it is now."""
    listing = fingerprint(open_source(Source(uri=uri), platform.settings))
    ends(platform, "validate", model_id, JobOutcome(ok=True, listing=listing))
    ends(platform, "upload", model_id, JobOutcome(ok=True, prefix=version_prefix(model_id, "BF16"), digest="d"))
    until(lambda: platform.models.get(DEFAULT_WORKSPACE, model_id).state == "healthy")


async def test_a_folder_is_imported_again_once_it_has_changed(
    vertex: httpx.AsyncClient, platform: Platform, weights: Callable[..., str], tmp_path: Path
) -> None:
    uri = weights()

    async def deploy() -> tuple[str, str]:
        answer = await vertex.post(f"{PLACE}:deploy", json={"custom_model": {"gcs_uri": uri}})
        assert answer.status_code == 200, answer.text
        metadata = answer.json()["metadata"]
        return metadata["model"].rpartition("/")[2], metadata["reason"]

    first, reason = await deploy()
    assert reason == ""
    assert (await deploy())[0] == first  # nobody has looked at the folder yet
    imported(platform, first, uri)
    again, reason = await deploy()
    made = platform.models.get(DEFAULT_WORKSPACE, first)
    moment = f"{made.created_at:%Y-%m-%d %H:%M} UTC"
    assert (again, reason) == (first, f"it uses model mine ({first}) of {moment}: the folder has not changed since")
    assert made.listing
    assert made.listing not in (await vertex.get(f"http://test/v1/models/{first}")).text

    (tmp_path / "mine" / "model.safetensors").write_bytes(b"other weights")
    second, reason = await deploy()
    assert (second != first, reason) == (True, "")
    imported(platform, second, uri)
    assert (await deploy())[0] == second
    (tmp_path / "mine" / "model.safetensors").unlink()
    assert (await deploy())[0] == first  # as it was at first, but for what nobody lists
    assert len([one for one in platform.models.find(DEFAULT_WORKSPACE) if one.spec]) == 2


async def test_a_folder_that_is_gone_is_not_deployed(
    vertex: httpx.AsyncClient, platform: Platform, weights: Callable[..., str], tmp_path: Path
) -> None:
    wish = {"custom_model": {"gcs_uri": weights()}}
    made = (await vertex.post(f"{PLACE}:deploy", json=wish)).json()["metadata"]["model"].rpartition("/")[2]
    imported(platform, made, wish["custom_model"]["gcs_uri"])
    (tmp_path / "mine" / "config.json").unlink()
    (tmp_path / "mine").rmdir()
    answer = await vertex.post(f"{PLACE}:deploy", json=wish)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "custom_model.gcs_uri")


async def test_a_refused_deployment_leaves_no_model(
    open_platform: OpenPlatform, settings: Settings, weights: Callable[..., str]
) -> None:
    gib = 1 << 30
    gpu = MachineType(name="gpu-1", accelerator="T4", accelerator_count=1, accelerator_memory_bytes=gib, quota=1)
    small = MachineType(name="cpu-small", memory_bytes=gib)
    platform = open_platform(machine_types=[gpu, small])
    platform.endpoints.create(DEFAULT_WORKSPACE, spec("taken", machine_type="gpu-1"))
    uri = weights()
    before = platform.models.find(DEFAULT_WORKSPACE)
    machine = {"machine_type": "gpu-1", "accelerator_type": "T4", "accelerator_count": 1}
    for wish, status, said in (
        ({"endpoint_config": {"endpoint_display_name": "taken"}}, 409, "named taken"),
        ({"deploy_config": {"dedicated_resources": {"machine_spec": machine}}}, 409, "may have 1 units of gpu-1"),
        ({"custom_model": {"gcs_uri": uri, "base_model": "Llama3-70B"}}, 400, "No machine type can serve this"),
        ({"model_config": {"model_user_id": "Model-1"}}, 409, "a model named Model-1"),
    ):
        async with client(platform, admin_key(settings)) as caller:
            answer = await caller.post(f"{PLACE}:deploy", json={"custom_model": {"gcs_uri": uri}, **wish})
        assert (answer.status_code, said in answer.json()["error"]["message"]) == (status, True), answer.text
    assert platform.models.find(DEFAULT_WORKSPACE) == before
    assert [endpoint.spec.name for endpoint in platform.endpoints.find(DEFAULT_WORKSPACE)] == ["taken"]
