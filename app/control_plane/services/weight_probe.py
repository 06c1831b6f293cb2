"""A first look at a folder of weights: its config.json tells the base model and the precision."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from app.catalog.catalog import Catalog
from app.catalog.matching import matching, possible
from app.core.errors import InvalidField
from app.core.model_specs import Source
from app.core.specs import Precision
from app.settings import Settings
from app.store.folders import Folder, FolderFile, fingerprint_of
from app.store.sources import open_source
from app.weights.quantization import read_scheme
from app.weights.small_files import CONFIG_BYTES, read_object

_CONFIG = "config.json"
_CANDIDATES_TOLD = 10


@dataclass(frozen=True)
class Probe:
    """What the folder is, as far as its config.json tells."""

    base_model: str
    precision: Precision


@dataclass(frozen=True)
class Listed:
    """A folder and what is in it now."""

    source: Source
    folder: Folder
    files: Sequence[FolderFile]

    @property
    def fingerprint(self) -> str:
        """As of the folder that a model was imported from, see Model.listing."""
        return fingerprint_of(self.files)


def listed(source: Source, settings: Settings, param: str) -> Listed:
    """The folder's listing. Raises InvalidField for `param` when there is none to be had."""
    with _explained(param):
        folder = open_source(source, settings)
        return Listed(source, folder, folder.files())


def probe(listed: Listed, base_model: str | None, catalog: Catalog, param: str) -> Probe:
    """Look into the folder; `base_model` is what the caller says it is of, or None.

    Reads at most a megabyte. Raises InvalidField for `param` when that is not possible, or does not tell.
    """
    config = _read_config(listed, param)
    precision = _precision(config, param)
    if base_model is not None:
        return Probe(base_model, precision)
    found = matching(catalog.entries, config)
    if len(found) > 1:
        found = [entry for entry in found if precision in entry.upload_precisions] or found
    if len(found) == 1:
        return Probe(found[0].base_model, precision)
    found = found or possible(catalog.entries, config)
    # Models of one shape, or of which no shape is known: what the folder or the config is called may tell.
    names = (listed.source.uri.rstrip("/"), config.get("_name_or_path"))
    for entry in [catalog.find(name) for name in names if isinstance(name, str) and name]:
        if entry is not None and entry in found:
            return Probe(entry.base_model, precision)
    hint = "pass custom_model.base_model, or custom_model.model_id for a model that is there already"
    if not found:
        raise InvalidField(
            f"No base model of the catalogue has the architecture and shape in {_CONFIG}; {hint}.", param
        )
    names_told = ", ".join(entry.base_model for entry in found[:_CANDIDATES_TOLD])
    more = f" and {len(found) - _CANDIDATES_TOLD} more" if len(found) > _CANDIDATES_TOLD else ""
    raise InvalidField(
        f"{_CONFIG} does not tell which base model this is; it may be {names_told}{more}; {hint}.", param
    )


def _read_config(listed: Listed, param: str) -> dict[str, Any]:
    file = next((file for file in listed.files if file.name == _CONFIG), None)
    if file is None:
        raise InvalidField(f"The folder has no {_CONFIG}.", param)
    with _explained(param):
        return read_object(listed.folder, file, CONFIG_BYTES)


@contextmanager
def _explained(param: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        told = str(error) if type(error).__module__.startswith("app.") else type(error).__name__
        raise InvalidField(f"The folder cannot be read: {told}.", param) from None
    except ValueError as error:  # of the listing or the file; both tell only what is in the folder
        raise InvalidField(f"The folder's files cannot be read: {error}.", param) from None


def _precision(config: dict[str, Any], param: str) -> Precision:
    quantization = config.get("quantization_config")
    if quantization is None:
        return "BF16"
    scheme = read_scheme(quantization)
    if not scheme.known or scheme.precision is None:
        raise InvalidField(f"The weights are quantized in a way that is not served: {scheme.description[:200]}.", param)
    return scheme.precision
