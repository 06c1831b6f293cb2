"""/platform/v1/endpoints/{endpoint_id}/scaling and /tiers."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic_core import to_jsonable_python

from app.control_plane.api.access import Developer, PlatformDep
from app.control_plane.api.filters import WindowDep
from app.control_plane.api.pages import PageDep
from app.core.records import ScalingDecision
from app.core.tier_estimates import COMPLETION_TOKENS, PROMPT_TOKENS
from app.core.tiers import concurrency_of, units_for

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])

BASIS = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS, "cache_hit_pct": 0}


def _show(decision: ScalingDecision) -> dict[str, Any]:
    told = decision.model_dump(mode="json", exclude={"id", "created_at", "endpoint_id"})
    at = to_jsonable_python(decision.created_at)
    return {"object": "scaling_decision", "id": decision.id, "at": at, "endpoint": decision.endpoint_id, **told}


@router.get("/{endpoint_id}/scaling")
def scaling(
    endpoint_id: str, caller: Developer, platform: PlatformDep, page: PageDep, window: WindowDep
) -> dict[str, Any]:
    """Every change of how many units the endpoint is to have, oldest first, or newest first with `order=desc`.

    `signals`, `rules` and `timers` are all that it followed from; `rule` called for it, `bound` held it back.
    """
    platform.endpoints.get(caller.workspace, endpoint_id, deleted=True)
    return page.read(platform.scaling_journal.find, _show, endpoint_id=endpoint_id, **window.arguments)


@router.get("/{endpoint_id}/tiers")
def tiers(
    endpoint_id: str,
    caller: Developer,
    platform: PlatformDep,
    tps: Annotated[float | None, Query(gt=0, le=1e12, allow_inf_nan=False)] = None,
) -> dict[str, Any]:
    """What a unit gives on each tier, the lowest first, and which one the endpoint has.

    `ttft_ms`, `tpot_ms` and `tps` (tokens in and out a second) are estimates where `measured` is false, and null where
    nobody can tell. With `tps`, each tier also has the `units` that carry so many.
    """
    endpoint = platform.endpoints.get(caller.workspace, endpoint_id)
    machine, scale = platform.tiers.machine(endpoint), endpoint.spec.scale
    levels = platform.tiers.of(endpoint)
    sized = {tier.name: {"units": units_for(tps, tier, machine.step)} for tier in levels} if tps else {}
    return {
        "object": "endpoint_tiers",
        "endpoint_id": endpoint.id,
        "machine_type": machine.name,
        "step": machine.step,
        "tier": None if scale.target_concurrency is not None else scale.tier or "high",
        "concurrency": concurrency_of(scale, machine, endpoint.spec.engine.max_num_seqs),
        "basis": BASIS,
        "tiers": [{**asdict(tier), **sized.get(tier.name, {})} for tier in levels],
    }
