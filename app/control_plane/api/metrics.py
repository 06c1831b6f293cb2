"""/platform/v1/endpoints/{endpoint_id}/metrics."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic_core import to_jsonable_python

from app.control_plane.api.access import Developer, PlatformDep
from app.core.figures import resource_figures, service_figures

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])


@router.get("/{endpoint_id}/metrics")
def metrics(
    endpoint_id: str,
    caller: Developer,
    platform: PlatformDep,
    minutes: Annotated[int, Query(ge=1, le=1440)] = 60,
) -> dict[str, Any]:
    """An endpoint's figures of the last minutes, oldest first; a minute of which nothing is known is left out.

    `service` is what callers got, `resources` is what the units took; the last minute may not be over. Also of an
    endpoint that can be restored.
    """
    platform.endpoints.get(caller.workspace, endpoint_id, deleted=True)
    found = platform.figures.minutes(endpoint_id, minutes)
    return {
        "object": "endpoint_metrics",
        "endpoint_id": endpoint_id,
        "service": [{"minute": _show(minute), **service_figures(figures)} for minute, figures in found],
        "resources": [{"minute": _show(minute), **resource_figures(figures)} for minute, figures in found],
    }


def _show(minute: datetime) -> Any:
    return to_jsonable_python(minute)
