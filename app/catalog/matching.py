"""Which base models a config.json may belong to: pure, from the catalogue's architectures and structures."""

from collections.abc import Iterable, Mapping
from typing import Any

from app.catalog.entries import CatalogEntry


def matching(entries: Iterable[CatalogEntry], config: Mapping[str, Any]) -> list[CatalogEntry]:
    """The entries whose architecture the config names and whose structure it has, in their order.

    A field that the config leaves to its class's default contradicts nothing, but some must be there and agree.
    """
    return [entry for entry in _family(entries, config) if entry.structure and _agrees(entry, config)]


def possible(entries: Iterable[CatalogEntry], config: Mapping[str, Any]) -> list[CatalogEntry]:
    """The entries whose architecture the config names and of which the structure is not known: nothing proves them."""
    return [entry for entry in _family(entries, config) if not entry.structure]


def _family(entries: Iterable[CatalogEntry], config: Mapping[str, Any]) -> list[CatalogEntry]:
    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and named else None
    return [entry for entry in entries if architecture in entry.architectures]


def _agrees(entry: CatalogEntry, config: Mapping[str, Any]) -> bool:
    text = config.get("text_config")
    inner: Mapping[str, Any] = text if isinstance(text, dict) else {}
    found = {field: inner.get(field, config.get(field)) for field in entry.structure}
    known = {field: value for field, value in found.items() if value is not None}
    return bool(known) and all(value == entry.structure[field] for field, value in known.items())
