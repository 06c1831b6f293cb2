"""What each tier gives for an endpoint: estimates, until a benchmark has measured its units."""

from contextlib import suppress

from app.control_plane.services.machines import Machines
from app.control_plane.services.models import Models
from app.core.errors import Conflict, NotFound
from app.core.machines import fit
from app.core.records import Endpoint, Model
from app.core.specs import MachineType
from app.core.tier_estimates import UnitSpeed, unit_speed
from app.core.tiers import Tier, estimated_tiers


class Tiers:
    """Of endpoints, by their models and machine types."""

    def __init__(self, models: Models, machines: Machines):
        self._models = models
        self._machines = machines

    def machine(self, endpoint: Endpoint) -> MachineType:
        """What its units run on. Raises Conflict when a serve config has taken that machine type away."""
        machine = self._machines.find(endpoint.machine_type)
        if machine is None:
            raise Conflict(f"Machine type {endpoint.machine_type} is declared no more.", "machine_type")
        return machine

    def of(self, endpoint: Endpoint) -> tuple[Tier, ...]:
        """The lowest first. Raises Conflict as `machine` does."""
        machine, model = self.machine(endpoint), None
        with suppress(NotFound):
            model = self._models.get(endpoint.workspace, endpoint.spec.model)
            model = self._models.in_precision(model, endpoint.spec.precision)
        return estimated_tiers(machine, endpoint.spec.engine.max_num_seqs, self._speed(endpoint, machine, model))

    def _speed(self, endpoint: Endpoint, machine: MachineType, model: Model | None) -> UnitSpeed | None:
        needs = self._machines.needs(endpoint.spec, model)
        return unit_speed(
            machine,
            fit(needs, machine).mode or machine.modes[0],
            endpoint.spec.engine,
            weights_bytes=needs.weights_bytes,
            parameters=model.facts.parameters if model else None,
            kv_bytes_per_token=model.facts.kv_bytes_per_token if model else None,
        )
