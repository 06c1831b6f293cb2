"""What an endpoint's units are told, and by which revision they run. Both follow from its record and its model."""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from app import __version__
from app.control_plane.services.families import Families
from app.control_plane.services.machines import Machines
from app.control_plane.services.models import Models
from app.core.errors import NotFound, NotReady, PlatformError
from app.core.lifecycle import revision_of
from app.core.records import Endpoint, Model, Version
from app.core.scale_rules import rules_of
from app.core.scaling import Rules
from app.core.specs import DeploymentMode
from app.core.unit_placement import placement_options
from app.unit.deployment import UnitSpec
from app.unit.engine import Simulation

EVERY_ENDPOINT = "*"
PLACEMENT = {"accelerator", "accelerator_count", "cpus", "resources", "labels", "modes"}
"""What of a machine type decides where a unit's process runs: with another value it is another process."""

Weights = tuple[Version, Model]
_Named = tuple[str, str, str, bool]
"""Workspace, model and precision of a version, and whether it may have failed its quality gate."""

log = logging.getLogger("ray.serve")


class UnitSpecs:
    """From wishes to what is deployed."""

    def __init__(self, models: Models, machines: Machines, families: Families, simulations: Mapping[str, Simulation]):
        self._models = models
        self._machines = machines
        self._families = families
        self._simulations = simulations

    def of(self, endpoint: Endpoint) -> UnitSpec:
        """What the endpoint's units should be told. Raises PlatformError while it cannot be served."""
        return self._of(endpoint, *self._weights(endpoint))

    def of_all(self, endpoints: Iterable[Endpoint]) -> tuple[dict[str, UnitSpec], dict[str, str], dict[str, str]]:
        """What the units of each endpoint should be told; of the others what they wait for, or why they cannot be.

        In the order (units, problems, awaited), each by endpoint ID.
        """
        known: dict[_Named, Weights | PlatformError] = {}  # many share a model: it is looked up once
        specs: dict[str, UnitSpec] = {}
        problems: dict[str, str] = {}
        awaited: dict[str, str] = {}
        for endpoint in endpoints:
            try:
                specs[endpoint.id] = self._of(endpoint, *self._known_weights(endpoint, known))
            except NotReady as error:
                awaited[endpoint.id] = error.message
            except PlatformError as error:
                problems[endpoint.id] = error.message
            except Exception:  # one endpoint never holds up another
                log.exception("the units of %s cannot be told what to do", endpoint.id)
                problems[endpoint.id] = "an internal error: the operator finds it in the control plane's log"
        return specs, problems, awaited

    def length_tokens(self, endpoint: Endpoint) -> int | None:
        """The longest prompt plus answer of its units; None while there is nothing to tell it by."""
        spec = endpoint.spec
        if spec.max_model_len is not None:
            return spec.max_model_len
        with suppress(NotFound):
            return self._machines.length_tokens(spec, self._models.get(endpoint.workspace, spec.model))
        return None

    def placement(self, endpoint: Endpoint, spec: UnitSpec) -> dict[str, Any]:
        """The options by which Serve finds the nodes of units that are told this. Raises InvalidField."""
        mode = DeploymentMode(
            machines=spec.machines,
            tensor_parallel_size=spec.tensor_parallel_size,
            pipeline_parallel_size=spec.pipeline_parallel_size,
        )
        return placement_options(self._machines.get(endpoint.machine_type), mode)

    def rules(self, endpoint: Endpoint, spec: UnitSpec) -> Rules:
        """By which the number of units that are told this changes. Raises PlatformError as `of` does."""
        per_token = self._weights(endpoint)[1].facts.kv_bytes_per_token
        tokens = spec.kv_cache_bytes / per_token if spec.kv_cache_bytes and per_token else None
        return rules_of(endpoint.spec.scale, self._machines.get(endpoint.machine_type), spec.max_num_seqs, tokens)

    def revision(self, endpoint: Endpoint, spec: UnitSpec) -> str:
        """The name of the revision that these units make up."""
        machine = self._machines.get(endpoint.machine_type)
        return revision_of(__version__, spec.model_dump_json(), machine.model_dump_json(include=PLACEMENT))

    def _weights(self, endpoint: Endpoint) -> Weights:
        spec = endpoint.spec
        version = self._models.version(
            endpoint.workspace, spec.model, spec.precision, accept_quality=spec.accept_quality
        )
        model = self._models.get(endpoint.workspace, version.model_id)
        return version, self._models.in_precision(model, version.precision)

    def _known_weights(self, endpoint: Endpoint, known: dict[_Named, Weights | PlatformError]) -> Weights:
        spec = endpoint.spec
        key = (endpoint.workspace, spec.model, spec.precision, spec.accept_quality)
        if key not in known:
            try:
                known[key] = self._weights(endpoint)
            except PlatformError as error:
                known[key] = error
        found = known[key]
        if isinstance(found, PlatformError):
            raise found
        return found

    def _of(self, endpoint: Endpoint, version: Version, model: Model) -> UnitSpec:
        spec, engine = endpoint.spec, endpoint.spec.engine
        machine = self._machines.get(endpoint.machine_type)  # a serve config may name any
        mode = self._machines.fit(spec, model, machine).mode  # the model may have been unknown when it was placed
        assert mode is not None
        self._machines.require_scale(spec, machine)
        family = self._families.of(model)
        return UnitSpec(
            endpoint_id=endpoint.id,
            weights=version.prefix,
            digest=version.digest,
            max_model_len=self._machines.length_tokens(spec, model),
            max_num_seqs=engine.max_num_seqs,
            prefix_caching=engine.prefix_caching,
            enforce_eager=machine.enforce_eager if engine.enforce_eager is None else engine.enforce_eager,
            kv_cache_bytes=engine.kv_cache_bytes or machine.kv_cache_bytes,
            threads=engine.threads or machine.engine_threads,
            cache_salt=cache_salt(endpoint.workspace, version.digest),
            machines=mode.machines,
            tensor_parallel_size=mode.tensor_parallel_size,
            pipeline_parallel_size=mode.pipeline_parallel_size,
            tool_parser=family.tool_parser if family else None,
            reasoning_parser=family.reasoning_parser if family else None,
            driver=machine.driver,
            cards=machine.accelerator_count,
            simulation=self._simulations.get(spec.name, self._simulations.get(EVERY_ENDPOINT)),
        )


def cache_salt(workspace: str, digest: str) -> str:
    """Under which an engine keeps prefixes: how fast an answer begins tells nothing of what another workspace asked,
    and what other weights made of a prompt is never taken up again. `digest`: of the weights.
    """
    return hashlib.sha256(f"{workspace}\0{digest}".encode()).hexdigest()[:32]
