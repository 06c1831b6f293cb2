"""/platform/v1/machine-types."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from app.control_plane.api.access import Developer, PlatformDep
from app.control_plane.api.filters import Text
from app.control_plane.api.pages import PageDep
from app.control_plane.platform import Platform
from app.core.errors import BadRequest, InvalidField, NotFound
from app.core.findings import Facts
from app.core.machines import fit
from app.core.needs import Needs, needs_of
from app.core.records import ApiKey
from app.core.specs import SHORTEST_TOKENS, EndpointSpec, MachineType, Precision

router = APIRouter(prefix="/v1/machine-types", tags=["machine-types"])


class Wanted:
    """What is to be served, when the caller asks what fits: `?base_model=` or `?model=`, and `precision`."""

    def __init__(
        self,
        caller: Developer,
        platform: PlatformDep,
        base_model: Text = None,
        model: Text = None,
        precision: Annotated[Precision, Query()] = "BF16",
        max_model_len: Annotated[int | None, Query(ge=SHORTEST_TOKENS, le=1 << 24)] = None,
    ):
        self.needs: Needs | None = None
        if base_model is None and model is None:
            return
        if base_model is not None and model is not None:
            raise BadRequest("Name a base_model or a model, not both.", "model")
        spec = EndpointSpec(name="fit", model=model or "-", precision=precision, max_model_len=max_model_len)
        if model is not None:
            self.needs = platform.machines.needs(spec, platform.models.get(caller.workspace, model))
            return
        entry = platform.catalog.find(base_model or "")
        if entry is None:
            raise InvalidField("base_model is not in the catalogue.", "base_model")
        self.needs = needs_of(spec, Facts(), 0, entry.parameters_b, entry.max_length_tokens)


WantedDep = Annotated[Wanted, Depends()]


def _show(machine: MachineType, caller: ApiKey, platform: Platform, wanted: Wanted) -> dict[str, Any]:
    slots = platform.machines.slots(machine)
    shown = {
        "object": "machine_type",
        "id": machine.name,
        **machine.model_dump(mode="json", exclude={"quotas"}),  # which are other workspaces' business
        "quota": platform.machines.quota(caller.workspace, machine),
        "used": platform.machines.used(caller.workspace, machine.name),
        "cluster": None if slots is None else {"units": slots.total, "free": slots.free},
    }
    if wanted.needs is not None:
        found = fit(wanted.needs, machine)
        mode = found.mode.model_dump() if found.ok and found.mode else None
        shown["fit"] = {"ok": found.ok, "reasons": list(found.reasons), "mode": mode}
    return shown


@router.get("")
def find(caller: Developer, platform: PlatformDep, page: PageDep, wanted: WantedDep) -> dict[str, Any]:
    """What units can run on, by name: `used` is what this workspace's endpoints may take of the quota, `cluster` how
    many units the nodes hold now, null while they do not tell; with `model` or `base_model` also whether that fits."""
    return page.of(
        platform.machines.all(), lambda machine: _show(machine, caller, platform, wanted), lambda machine: machine.name
    )


@router.get("/{name}")
def get(name: str, caller: Developer, platform: PlatformDep, wanted: WantedDep) -> dict[str, Any]:
    """One machine type."""
    machine = platform.machines.find(name)
    if machine is None:
        raise NotFound("There is no such machine type.", "machine_type")
    return _show(machine, caller, platform, wanted)
