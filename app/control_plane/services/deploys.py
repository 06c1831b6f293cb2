"""Deploying in one step, as Vertex AI has it: from a folder of weights to an endpoint."""

import secrets
from contextlib import suppress
from dataclasses import dataclass, replace

from pydantic import ValidationError

from app.catalog.catalog import Catalog
from app.control_plane.services.endpoints import Endpoints
from app.control_plane.services.idempotency import Proof, no_proof
from app.control_plane.services.machines import Machines
from app.control_plane.services.models import Models
from app.control_plane.services.weight_probe import Listed, listed, probe
from app.core.deploy_wishes import DeployWish, name_from, wished_machine
from app.core.errors import Conflict, InvalidField, NotFound
from app.core.field_errors import field_error
from app.core.model_specs import ModelSpec, Source
from app.core.records import Endpoint, Model
from app.core.source_rules import check_source
from app.core.specs import EndpointSpec, Precision
from app.settings import Settings

URI = "custom_model.gcs_uri"
MODEL = "custom_model.model_id"


@dataclass(frozen=True)
class _Weights:
    """What is to be served."""

    model: Model
    precision: Precision
    new: bool = False
    """Planned only: the model is to be made."""
    reused: str = ""
    """Which model it is, where the caller has named a folder that is there already."""


class Deploys:
    """Makes models and endpoints out of one wish; the endpoint waits for its model."""

    def __init__(self, settings: Settings, catalog: Catalog, machines: Machines, models: Models, endpoints: Endpoints):
        self._settings = settings
        self._catalog = catalog
        self._machines = machines
        self._models = models
        self._endpoints = endpoints

    def deploy(self, workspace: str, wish: DeployWish, *, admin: bool, proof: Proof = no_proof) -> Endpoint:
        """The endpoint that is made. Raises InvalidField, NotFound, Conflict, Forbidden (a source not allowed)."""
        machine = wished_machine(wish.machine, {m.name: m for m in self._machines.all()}) if wish.machine else None
        weights = self._weights(workspace, wish, admin=admin)
        model = weights.model
        scale = {"min_units": wish.min_units, "max_units": wish.max_units}
        fields = {
            "name": wish.name or self._free_name(workspace, name_from(wish.uri or model.name, "endpoint")),
            "model": model.id,
            "precision": weights.precision,
            "machine_type": machine.name if machine else None,
            "scale": scale,
            "allowed_networks": wish.allowed_networks,
        }
        try:
            spec = EndpointSpec.model_validate(fields)
        except ValidationError as error:
            raise field_error(error) from None
        return self._endpoints.create(workspace, spec, proof, model if weights.new else None, weights.reused)

    def _weights(self, workspace: str, wish: DeployWish, *, admin: bool) -> _Weights:
        if wish.uri is None:
            if wish.model is None:
                raise InvalidField("custom_model needs gcs_uri, or model_id for a model that is there.", URI)
            self._models.adopt_missing(workspace, wish.model)
            return self._served(self._models.get(workspace, wish.model))
        source = self._source(wish.uri, admin=admin)
        folder = listed(source, self._settings, URI)
        if known := self._known(workspace, folder, wish):
            begun = f"{known.created_at:%Y-%m-%d %H:%M} UTC"
            told = f"it uses model {known.name} ({known.id}) of {begun}: the folder has not changed since"
            return replace(self._served(known), reused=told)
        found = probe(folder, wish.base_model, self._catalog, URI)
        name = wish.model or self._free_model_name(workspace, wish.uri)
        planned = self._models.planned(workspace, self._model_spec(name, source, found.base_model, found.precision))
        return _Weights(planned, found.precision, new=True)

    def _source(self, uri: str, *, admin: bool) -> Source:
        if uri.startswith("gs://"):
            raise InvalidField("gs:// is not read here; copy the folder to s3://BUCKET/FOLDER or file:///FOLDER.", URI)
        try:
            source = Source(uri=uri)
        except ValidationError as error:
            raise InvalidField(f"{URI}: {error.errors()[0]['msg']}.", URI) from None
        check_source(source, admin=admin, settings=self._settings)
        return source

    def _known(self, workspace: str, folder: Listed, wish: DeployWish) -> Model | None:
        """A model that was made from this folder as it is now and has not failed, the last of them.

        One that is preparing and has not looked at the folder yet will find it as it is now, or fail.
        """
        entry = self._catalog.find(wish.base_model) if wish.base_model else None
        for model in reversed(self._models.find(workspace)):
            if model.spec is None or model.spec.source != folder.source or model.state not in ("healthy", "preparing"):
                continue
            if model.listing != folder.fingerprint and (model.listing or model.state == "healthy"):
                continue
            if wish.model in (None, model.id, model.name) and (entry is None or entry.base_model == model.base_model):
                return model
        return None

    def _served(self, model: Model) -> _Weights:
        """With the precision to serve: the plain one where there is one."""
        versions = self._models.versions(model)
        plain = next((version.precision for version in versions if version.precision == "BF16"), None)
        if not versions:
            raise Conflict(f"Model {model.name} is {model.state} and has no version.", MODEL)
        return _Weights(model, plain or versions[0].precision)

    def _model_spec(self, name: str, source: Source, base_model: str, precision: Precision) -> ModelSpec:
        try:
            return ModelSpec(name=name, base_model=base_model, source=source, precision=precision)
        except ValidationError as error:
            raise field_error(error) from None

    def _free_model_name(self, workspace: str, uri: str) -> str:
        name = name_from(uri, "model")
        with suppress(NotFound):
            self._models.get(workspace, name)
            return f"{name}-{secrets.token_hex(3)}"
        return name

    def _free_name(self, workspace: str, name: str) -> str:
        taken = any(one.state != "deleting" for one in self._endpoints.find(workspace, name=name))
        return f"{name}-{secrets.token_hex(3)}" if taken else name
