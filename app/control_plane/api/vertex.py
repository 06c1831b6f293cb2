"""/platform/v1beta1: deploying and looking at endpoints as Vertex AI has it (S4).

Project and location are free text.
"""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import to_jsonable_python

from app.control_plane.api.access import Creator, Developer, PlatformDep
from app.control_plane.api.idempotency import OnceDep
from app.control_plane.api.pages import unknown_token
from app.control_plane.platform import Platform
from app.core.deploy_wishes import NO_CARD, DeployWish, machine_wish
from app.core.errors import InvalidField, NotFound
from app.core.etags import etag_of
from app.core.keys import covers, is_platform_admin
from app.core.names import ModelName, ServiceName
from app.core.networks import Network
from app.core.records import Endpoint
from app.core.texts import Line

LOCATION = "/v1beta1/projects/{project}/locations/{location}"
_OPERATION = "deploy-"
_WORKS = ("healthy", "sleeping", "waking", "scaling", "upgrading", "alarm")
_FAILED_PRECONDITION = 9
"""Google's number for it."""

router = APIRouter(tags=["vertex"])


class _Part(BaseModel):
    """Fields by their names in snake_case or camelCase."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, strict=True, extra="forbid", frozen=True,
        protected_namespaces=(),
    )  # fmt: skip


class _CustomModel(_Part):
    gcs_uri: Annotated[str, Field(max_length=2048, min_length=1)] | None = None
    """A folder of weights: s3://BUCKET/FOLDER or file:///FOLDER."""
    model_id: Annotated[str, Field(max_length=128, min_length=1)] | None = None
    """A model that is there, by ID or name; with gcs_uri what the new one is to be called."""
    base_model: Annotated[str, Field(max_length=128, min_length=1)] | None = None
    """Of the catalogue; left out, config.json tells."""


class _ModelConfig(_Part):
    model_user_id: ModelName | None = None


class _MachineSpec(_Part):
    machine_type: Annotated[str, Field(max_length=64)] | None = None
    accelerator_type: Annotated[str, Field(max_length=64)] | None = None
    accelerator_count: Annotated[int, Field(ge=0, le=1024)] | None = None


class _DedicatedResources(_Part):
    machine_spec: _MachineSpec = _MachineSpec()
    min_replica_count: Annotated[int, Field(ge=0, le=64)] = 1
    max_replica_count: Annotated[int, Field(ge=1, le=64)] | None = None


class _DeployConfig(_Part):
    dedicated_resources: _DedicatedResources = _DedicatedResources()


class _PrivateServiceConnect(_Part):
    enable_private_service_connect: bool = False
    project_allowlist: Annotated[tuple[Network, ...], Field(max_length=64, strict=False)] = ()
    """Networks (CIDR): where projects would be, callers are told apart by where they are."""


class _EndpointConfig(_Part):
    endpoint_display_name: ServiceName | None = None
    private_service_connect_config: _PrivateServiceConnect = _PrivateServiceConnect()


class DeployRequest(_Part):
    """Body of :deploy."""

    custom_model: _CustomModel = _CustomModel()
    model_settings: _ModelConfig = Field(
        _ModelConfig(), validation_alias=AliasChoices("model_config", "modelConfig"), serialization_alias="modelConfig"
    )
    destination: Annotated[str, Field(max_length=512)] | None = None
    deploy_config: _DeployConfig = _DeployConfig()
    endpoint_config: _EndpointConfig = _EndpointConfig()


@router.post(LOCATION + ":deploy")
def deploy(
    project: str,
    location: str,
    body: Annotated[DeployRequest, Body()],
    caller: Creator,
    platform: PlatformDep,
    once: OnceDep,
) -> dict[str, Any]:
    """Make an endpoint of a folder of weights, or of a model; answers with an operation that names it."""
    place = _place(project, location)
    if body.destination not in (None, place):
        raise InvalidField(f"destination must be {place}, as the path says, or be left out.", "destination")
    wish = _wish(body)
    endpoint = once.make(
        body,
        lambda proof: platform.deploys.deploy(caller.workspace, wish, admin=is_platform_admin(caller), proof=proof),
        lambda endpoint_id: platform.endpoints.get(caller.workspace, endpoint_id),
    )
    return _operation(endpoint, place, platform)


@router.get(LOCATION + "/operations/{operation}")
def operation(project: str, location: str, operation: str, caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """How far a deployment is."""
    endpoint_id = operation.removeprefix(_OPERATION)
    if endpoint_id == operation or not covers(caller, endpoint_id):
        raise NotFound("There is no such operation.")
    endpoint = platform.endpoints.get(caller.workspace, endpoint_id)
    return _operation(endpoint, _place(project, location), platform)


@router.get(LOCATION + "/endpoints")
def find(
    project: str,
    location: str,
    caller: Developer,
    platform: PlatformDep,
    page_size: Annotated[int, Query(alias="pageSize", ge=1, le=1000)] = 100,
    page_token: Annotated[Line | None, Query(alias="pageToken", max_length=128)] = None,
) -> dict[str, Any]:
    """The workspace's endpoints, oldest first."""
    only: dict[str, Any] = {} if caller.endpoints is None else {"id": caller.endpoints}
    try:
        found = platform.endpoints.find(caller.workspace, after=page_token, limit=page_size + 1, **only)
    except ValueError:
        if page_token is None:
            raise
        raise unknown_token() from None
    shown = [_show(endpoint, _place(project, location), platform) for endpoint in found[:page_size]]
    return {"endpoints": shown, "nextPageToken": found[page_size - 1].id if len(found) > page_size else ""}


@router.get(LOCATION + "/endpoints/{endpoint_id}")
def get(project: str, location: str, endpoint_id: str, caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """One endpoint."""
    return _show(platform.endpoints.get(caller.workspace, endpoint_id), _place(project, location), platform)


def _place(project: str, location: str) -> str:
    return f"projects/{project}/locations/{location}"


def _wish(body: DeployRequest) -> DeployWish:
    named, called = body.custom_model.model_id, body.model_settings.model_user_id
    if named and called and named != called:
        raise InvalidField("model_config.model_user_id and custom_model.model_id differ: give one.", "model_config")
    resources, machine = body.deploy_config.dedicated_resources, body.deploy_config.dedicated_resources.machine_spec
    most = resources.max_replica_count or max(1, resources.min_replica_count)
    if most < resources.min_replica_count:
        raise InvalidField(
            f"max_replica_count ({most}) is below min_replica_count ({resources.min_replica_count}).",
            "deploy_config.dedicated_resources.max_replica_count",
        )
    private = body.endpoint_config.private_service_connect_config
    if private.enable_private_service_connect != bool(private.project_allowlist):
        raise InvalidField(
            "A private endpoint needs enablePrivateServiceConnect and a projectAllowlist of networks (CIDR).",
            "endpoint_config.private_service_connect_config",
        )
    return DeployWish(
        uri=body.custom_model.gcs_uri,
        model=named or called,
        base_model=body.custom_model.base_model,
        name=body.endpoint_config.endpoint_display_name,
        machine=machine_wish(machine.machine_type, machine.accelerator_type, machine.accelerator_count),
        min_units=resources.min_replica_count,
        max_units=most,
        allowed_networks=private.project_allowlist,
    )


def _operation(endpoint: Endpoint, place: str, platform: Platform) -> dict[str, Any]:
    """It is done when the endpoint works, or cannot; `error` and `response` are as Google's operations have them."""
    shown: dict[str, Any] = {
        "name": f"{place}/operations/{_OPERATION}{endpoint.id}",
        "metadata": {
            "endpoint": f"{place}/endpoints/{endpoint.id}",
            "model": f"{place}/models/{_model_id(endpoint, platform)}",
            "destination": place,
            "state": endpoint.state,
            "reason": endpoint.reason,
            "createTime": _time(endpoint.created_at),
            "updateTime": _time(endpoint.updated_at or endpoint.created_at),
        },
        "done": endpoint.state not in ("scheduling",),
    }
    if endpoint.state in _WORKS:
        shown["response"] = {"endpoint": shown["metadata"]["endpoint"], "model": shown["metadata"]["model"]}
    elif shown["done"]:
        message = endpoint.reason or f"the endpoint is {endpoint.state}"
        shown["error"] = {"code": _FAILED_PRECONDITION, "message": message}
    return shown


def _show(endpoint: Endpoint, place: str, platform: Platform) -> dict[str, Any]:
    private = {
        "enablePrivateServiceConnect": bool(endpoint.spec.allowed_networks),
        "projectAllowlist": list(endpoint.spec.allowed_networks),
    }
    return {
        "name": f"{place}/endpoints/{endpoint.id}",
        "displayName": endpoint.spec.name,
        "deployedModels": [_deployed(endpoint, place, platform)] if endpoint.revision else [],
        "trafficSplit": {endpoint.revision: 100} if endpoint.revision else {},
        "etag": etag_of(endpoint),
        "createTime": _time(endpoint.created_at),
        "updateTime": _time(endpoint.updated_at or endpoint.created_at),
        "privateServiceConnectConfig": private,
    }


def _deployed(endpoint: Endpoint, place: str, platform: Platform) -> dict[str, Any]:
    machine = platform.machines.find(endpoint.machine_type)
    return {
        "id": endpoint.revision,
        "model": f"{place}/models/{_model_id(endpoint, platform)}",
        "displayName": endpoint.spec.name,
        "createTime": _time(endpoint.running_since or endpoint.created_at),
        "dedicatedResources": {
            "machineSpec": {
                "machineType": endpoint.machine_type,
                "acceleratorType": (machine.accelerator if machine else None) or NO_CARD[0],
                "acceleratorCount": machine.accelerator_count if machine else 0,
            },
            "minReplicaCount": endpoint.spec.scale.min_units,
            "maxReplicaCount": endpoint.spec.scale.max_units,
        },
        "enableContainerLogging": True,
        "privateEndpoints": {"serviceAttachment": None},  # networks are told apart by the routers
        "modelVersionId": endpoint.spec.precision,
        "status": {
            "lastUpdateTime": _time(endpoint.updated_at or endpoint.created_at),
            "availableReplicaCount": endpoint.running_units,
        },
    }


def _model_id(endpoint: Endpoint, platform: Platform) -> str:
    try:
        return platform.models.get(endpoint.workspace, endpoint.spec.model).id
    except NotFound:
        return endpoint.spec.model


def _time(moment: datetime) -> str:
    return str(to_jsonable_python(moment))
