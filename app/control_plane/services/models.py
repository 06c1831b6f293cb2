"""Models: what lies published in the object store becomes a record."""

from datetime import UTC, datetime

from app.core.errors import NotFound
from app.core.records import DEFAULT_WORKSPACE, Model, Version
from app.core.specs import Precision
from app.store.database import Registry
from app.store.layout import Manifest, find_manifests, version_prefix
from app.store.objects import ObjectStore


class Models:
    """The model repository's records."""

    def __init__(self, registry: Registry, store: ObjectStore):
        self._registry = registry
        self._store = store

    def adopt(self) -> None:
        """Register every published version that the registry does not know, so that it can be rebuilt from storage."""
        for manifest in find_manifests(self._store):
            self._register(manifest)

    def _register(self, manifest: Manifest) -> None:
        now = datetime.now(UTC)
        known = self._registry.get(Model, manifest.model_id)
        model = Model(
            id=manifest.model_id,
            created_at=known.created_at if known else now,
            workspace=known.workspace if known else DEFAULT_WORKSPACE,
            name=manifest.name,
            base_model=manifest.base_model,
            state="healthy",
        )
        version = Version(
            id=f"{manifest.model_id}:{manifest.precision}",
            created_at=now,
            model_id=manifest.model_id,
            precision=manifest.precision,
            prefix=version_prefix(manifest.model_id, manifest.precision),
            digest=manifest.digest,
            state="healthy",
        )
        old = self._registry.get(Version, version.id)
        if known is None or old is None or old.digest != version.digest:
            self._registry.put(model, version)

    def find(self, workspace: str) -> list[Model]:
        """A workspace's models, oldest first."""
        return self._registry.find(Model, workspace=workspace)

    def get(self, workspace: str, name_or_id: str) -> Model:
        """A model by its ID or its name. Raises NotFound."""
        model = self._registry.get(Model, name_or_id)
        if model is None:
            model = next((m for m in self.find(workspace) if m.name == name_or_id), None)
        if model is None or model.workspace != workspace:
            raise NotFound(f"There is no model {name_or_id!r} in this workspace.", "model")
        return model

    def version(self, workspace: str, name_or_id: str, precision: Precision) -> Version:
        """The deployable version of a model. Raises NotFound."""
        model = self.get(workspace, name_or_id)
        versions = self._registry.find(Version, model_id=model.id)
        for version in versions:
            if version.precision == precision:
                return version
        made = ", ".join(sorted(version.precision for version in versions)) or "none"
        raise NotFound(f"Model {model.name} has no version in {precision}; it has: {made}.", "precision")
