"""What Vertex AI's :deploy takes (S4), and the wish that it makes."""

from typing import Annotated

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from app.core.deploy_wishes import DeployWish, machine_wish
from app.core.errors import InvalidField
from app.core.names import ModelName, ServiceName
from app.core.networks import Network


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


def wish_of(body: DeployRequest) -> DeployWish:
    """The wish in our words. Raises InvalidField for fields that do not go together."""
    named, called = body.custom_model.model_id, body.model_settings.model_user_id
    if named and called and named != called:
        raise InvalidField("model_config.model_user_id and custom_model.model_id differ: give one.", "model_config")
    resources = body.deploy_config.dedicated_resources
    machine = resources.machine_spec
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
