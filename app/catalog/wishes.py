"""What the catalogue says to the wish for a model."""

from app.catalog.catalog import Catalog
from app.core.errors import InvalidField
from app.core.model_specs import ModelSpec, Source


def complete(spec: ModelSpec, catalog: Catalog) -> ModelSpec:
    """The wish with the base model's own name, and with the recommended source where it names none.

    Raises InvalidField for a base model, a precision or the want of a source that the catalogue does not allow.
    """
    entry = catalog.find(spec.base_model)
    if entry is None:
        raise InvalidField(
            "base_model is not in the catalogue; see GET /platform/v1/catalog. The operator can add entries.",
            "base_model",
        )
    if spec.precision not in entry.upload_precisions:
        allowed = ", ".join(entry.upload_precisions) or "none"
        raise InvalidField(
            f"precision {spec.precision} cannot be uploaded for {entry.base_model}; allowed: {allowed}.",
            "precision",
        )
    source = spec.source
    if source is None:
        if entry.recommended_source is None:
            why = "needs custom weights" if entry.custom_weights_only else "has no recommended weights here"
            raise InvalidField(f"source is missing: {entry.base_model} {why}.", "source")
        source = Source(uri=entry.recommended_source)
    return spec.model_copy(update={"base_model": entry.base_model, "source": source})
