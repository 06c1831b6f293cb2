"""/platform/v1/endpoints."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response
from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from app.control_plane.api.access import Developer, PlatformDep, Unlimited
from app.control_plane.api.filters import Text, given
from app.control_plane.api.idempotency import OnceDep
from app.control_plane.api.pages import Confirm, IfMatch, PageDep, confirmed
from app.control_plane.platform import Platform
from app.core.etags import etag_of
from app.core.records import Endpoint, EndpointState
from app.core.specs import EndpointSpec
from app.core.stop_rules import auto_stop_at

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])


def _patch_schema() -> dict[str, Any]:
    """What PATCH takes, for the OpenAPI description: any of the fields that POST takes, null for its default."""
    schema = EndpointSpec.model_json_schema(ref_template="#/components/schemas/{model}")
    fields = {name: {"anyOf": [field, {"type": "null"}]} for name, field in schema["properties"].items()}
    body = {"title": "EndpointPatch", "type": "object", "properties": fields, "additionalProperties": False}
    return {"requestBody": {"content": {"application/json": {"schema": body}}, "required": True}}


def show(endpoint: Endpoint, platform: Platform) -> dict[str, Any]:
    """An endpoint as the API gives it."""
    machine = platform.machines.find(endpoint.machine_type)
    shown = endpoint.model_dump(mode="json", exclude={"spec", "workspace", "idle_warned_at"})
    units = {name: shown.pop(f"{name}_units") for name in ("running", "starting", "target")}
    stop_at, purge_at = auto_stop_at(endpoint), platform.tombstones.purge_at(endpoint)
    return {
        "object": "endpoint",
        **endpoint.spec.model_dump(mode="json"),
        **shown,
        "max_model_len": platform.units.length_tokens(endpoint),
        "units": {**units, "step": machine.step if machine else 1},
        "traffic": {endpoint.revision: 100} if endpoint.revision else {},
        "etag": etag_of(endpoint),
        "auto_stop_at": to_jsonable_python(stop_at),
        "purge_at": to_jsonable_python(purge_at),
        "conflict": platform.declarations.conflict(endpoint),
    }


@router.post("", status_code=202)
def create(
    spec: Annotated[EndpointSpec, Body()], caller: Unlimited, platform: PlatformDep, once: OnceDep
) -> dict[str, Any]:
    """Wish for an endpoint; it becomes healthy by and by."""
    endpoint = once.make(
        spec,
        lambda proof: platform.endpoints.create(caller.workspace, spec, proof),
        lambda endpoint_id: platform.endpoints.get(caller.workspace, endpoint_id),
    )
    return show(endpoint, platform)


@router.get("")
def find(
    caller: Developer,
    platform: PlatformDep,
    page: PageDep,
    state: Annotated[EndpointState | None, Query()] = None,
    model: Text = None,
    name: Text = None,
    machine_type: Text = None,
    deleted: bool = False,
) -> dict[str, Any]:
    """The workspace's endpoints, oldest first; with `deleted=true` those that can be restored."""
    return page.read(
        platform.endpoints.find,
        lambda endpoint: show(endpoint, platform),
        workspace=caller.workspace,
        model=model,
        name=name,
        deleted=deleted,
        **given(state=state, machine_type=machine_type, id=caller.endpoints),
    )


@router.get("/{endpoint_id}")
def get(
    endpoint_id: str, caller: Developer, platform: PlatformDep, answer: Response, deleted: bool = False
) -> dict[str, Any]:
    """One endpoint; with `deleted=true` also one that can be restored."""
    endpoint = platform.endpoints.get(caller.workspace, endpoint_id, deleted=deleted)
    answer.headers["etag"] = f'"{etag_of(endpoint)}"'
    return show(endpoint, platform)


@router.patch("/{endpoint_id}", openapi_extra=_patch_schema())
def patch(
    endpoint_id: str,
    changes: Annotated[dict[str, JsonValue], Body()],
    caller: Developer,
    platform: PlatformDep,
    answer: Response,
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Change the fields that the body names (a JSON merge patch); `effect` says whether units are replaced for it."""
    change = platform.endpoints.patch(caller.workspace, endpoint_id, changes, if_match)
    answer.headers["etag"] = f'"{etag_of(change.endpoint)}"'
    return {**show(change.endpoint, platform), "effect": change.effect, "effect_reason": change.reason}


@router.post("/{endpoint_id}:stop", status_code=202)
def stop(endpoint_id: str, caller: Developer, platform: PlatformDep, if_match: IfMatch = None) -> dict[str, Any]:
    """Drain and remove its units; settings and keys stay."""
    return show(platform.endpoints.stop(caller.workspace, endpoint_id, if_match), platform)


@router.post("/{endpoint_id}:start", status_code=202)
def start(endpoint_id: str, caller: Developer, platform: PlatformDep, if_match: IfMatch = None) -> dict[str, Any]:
    """Serve again after a stop."""
    return show(platform.endpoints.start(caller.workspace, endpoint_id, if_match), platform)


@router.post("/{endpoint_id}:wake", status_code=202)
def wake(endpoint_id: str, caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """Start a unit of an endpoint that sleeps, as a request would."""
    return show(platform.wakes.wake(caller.workspace, endpoint_id), platform)


@router.post("/{endpoint_id}:restore", status_code=202)
def restore(endpoint_id: str, caller: Developer, platform: PlatformDep, if_match: IfMatch = None) -> dict[str, Any]:
    """Bring back a deleted endpoint with its ID, settings and keys."""
    return show(platform.endpoints.restore(caller.workspace, endpoint_id, if_match), platform)


@router.delete("/{endpoint_id}", status_code=202)
def delete(
    endpoint_id: str,
    caller: Developer,
    platform: PlatformDep,
    confirm: Confirm = "",
    purge: bool = False,
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Drain and remove an endpoint; it can be restored for a while.

    `purge=true` forgets one that is deleted at once: this cannot be undone, and lets its model be deleted.
    """
    confirmed(confirm)
    if purge:
        return show(platform.tombstones.purge(caller.workspace, endpoint_id, if_match), platform)
    return show(platform.endpoints.delete(caller.workspace, endpoint_id, if_match), platform)
