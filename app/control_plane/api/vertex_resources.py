"""Endpoints and their deployments as Vertex AI shows them (S4)."""

from datetime import datetime
from typing import Any

from pydantic_core import to_jsonable_python

from app.control_plane.platform import Platform
from app.core.deploy_wishes import NO_CARD
from app.core.errors import NotFound
from app.core.etags import etag_of
from app.core.records import Endpoint

OPERATION = "deploy-"
"""Begins the name of an operation; the endpoint's ID follows."""
_WORKS = ("healthy", "sleeping", "waking", "scaling", "upgrading", "alarm")
_FAILED_PRECONDITION = 9
"""Google's number for it."""


def show_operation(endpoint: Endpoint, place: str, platform: Platform) -> dict[str, Any]:
    """It is done when the endpoint works, or cannot; `error` and `response` are as Google's operations have them."""
    shown: dict[str, Any] = {
        "name": f"{place}/operations/{OPERATION}{endpoint.id}",
        "metadata": {
            "endpoint": f"{place}/endpoints/{endpoint.id}",
            "model": f"{place}/models/{_model_id(endpoint, platform)}",
            "destination": place,
            "state": endpoint.state,
            "reason": endpoint.reason,
            "createTime": _time(endpoint.created_at),
            "updateTime": _time(endpoint.updated_at or endpoint.created_at),
        },
        "done": endpoint.state != "scheduling",
    }
    if endpoint.state in _WORKS:
        shown["response"] = {"endpoint": shown["metadata"]["endpoint"], "model": shown["metadata"]["model"]}
    elif shown["done"]:
        message = endpoint.reason or f"the endpoint is {endpoint.state}"
        shown["error"] = {"code": _FAILED_PRECONDITION, "message": message}
    return shown


def show_endpoint(endpoint: Endpoint, place: str, address: str, platform: Platform) -> dict[str, Any]:
    """One endpoint; `place` is the project and the location that the caller named, `address` the platform's base URL.

    Every endpoint is reached at that address, which therefore is what Vertex calls its dedicated one.
    """
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
        "dedicatedEndpointEnabled": True,
        "dedicatedEndpointDns": address.partition("://")[2],
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
