"""Which family of models an endpoint serves, as the catalogue has it."""

from collections.abc import Iterable

from app.catalog.catalog import Catalog
from app.catalog.entries import CatalogEntry
from app.core.records import Endpoint, Model
from app.store.database import Registry


class Families:
    """The catalogue's entries by what is recorded of models."""

    def __init__(self, registry: Registry, catalog: Catalog):
        self._registry = registry
        self._catalog = catalog

    def of(self, model: Model) -> CatalogEntry | None:
        """None for a base model that the catalogue does not know any more."""
        return self._catalog.find(model.base_model)

    def that_call_tools(self, endpoints: Iterable[Endpoint]) -> set[str]:
        """The IDs of those whose units can read tool calls out of what their model says."""
        named: dict[tuple[str, str], list[str]] = {}
        for endpoint in endpoints:
            named.setdefault((endpoint.workspace, endpoint.spec.model), []).append(endpoint.id)
        names = [name for _, name in named]
        by_name = {(model.workspace, model.name): model for model in self._registry.find(Model, name=names)}
        by_id = {(model.workspace, model.id): model for model in self._registry.find(Model, id=names)}
        models = by_name | by_id
        return {
            endpoint_id
            for key, endpoint_ids in named.items()
            if key in models and (entry := self.of(models[key])) and entry.tool_parser
            for endpoint_id in endpoint_ids
        }
