"""The catalogue as it is shipped."""

from app.catalog.catalog import Catalog
from app.catalog.entries import CatalogEntry

CATALOG = Catalog.load()


def entry(name: str) -> CatalogEntry:
    found = CATALOG.find(name)
    assert found is not None, name
    return found
