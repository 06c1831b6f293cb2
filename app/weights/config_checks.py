"""config.json against the catalogue's entry: the architecture, and the fields that fix the model's shape."""

from typing import Any

from app.catalog.entries import CatalogEntry
from app.weights.finding_list import FindingList
from app.weights.folder_contents import CONFIG
from app.weights.model_config import KEY_FIELDS, ConfigRefused, is_known, load_config

_SAME_AS_BASE = "Take these fields from the base model's own config.json, or declare another base model."
_ABSENT = object()


def check_config(fields: dict[str, Any], entry: CatalogEntry, findings: FindingList) -> Any:
    """transformers' config of these fields, or None where there is none; what is wrong goes into `findings`."""
    check_auto_map(fields, CONFIG, findings)
    fits = _check_architecture(fields, entry, findings)
    model_type = fields.get("model_type")
    if not is_known(model_type):
        _check_structure(fields, None, entry, findings)
        known = isinstance(model_type, str) and model_type
        findings.add(
            "template_selection_error" if known else "structure_mismatch",
            "Use a model_type that transformers knows without code of the folder's own.",
            file=CONFIG,
            found=f"model_type {model_type}" if known else "no model_type",
            expected="a model_type of transformers",
        )
        return None
    try:
        config = load_config(fields)
    except ConfigRefused as error:
        _check_missing(fields, None, findings)
        findings.add("structure_mismatch", _SAME_AS_BASE, file=CONFIG, found=error.found, expected=error.expected)
        return None
    _check_missing(fields, config, findings)
    _check_structure(fields, config, entry, findings)
    return config if fits else None


def check_auto_map(fields: dict[str, Any], file: str, findings: FindingList) -> None:
    """Refuse a config, in the file of this name, that wants code of the folder's own."""
    if fields.get("auto_map"):
        findings.add(
            "code_refused",
            "Remove auto_map: models and tokenizers must load without code of their own.",
            file=file,
            found="auto_map",
        )


def _check_architecture(fields: dict[str, Any], entry: CatalogEntry, findings: FindingList) -> bool:
    named = fields.get("architectures")
    if isinstance(named, list) and named and named[0] in entry.architectures:
        return True
    findings.add(
        "structure_mismatch",
        "Declare the base model that these weights were made from, or mend architectures.",
        file=CONFIG,
        found="no architectures" if not named else f"architectures {named}",
        expected=f"architectures [{' or '.join(entry.architectures)}], for {entry.base_model}",
    )
    return False


def _check_missing(fields: dict[str, Any], config: Any, findings: FindingList) -> None:
    """A nested config may leave to its class what is the class's own default; one for text alone names its shape."""
    if "text_config" in fields or (config is not None and config.get_text_config() is not config):
        return
    names = getattr(config, "attribute_map", {})
    for field in KEY_FIELDS:
        if field not in fields and names.get(field, field) not in fields:
            findings.add(
                "structure_mismatch",
                _SAME_AS_BASE,
                file=CONFIG,
                found=f"no {field}",
                expected=f"the base model's {field}",
            )


def _check_structure(fields: dict[str, Any], config: Any, entry: CatalogEntry, findings: FindingList) -> None:
    text = config.get_text_config() if config is not None else None
    for field, standard in entry.structure.items():
        value = _ABSENT
        for source in (text, config):
            if value is _ABSENT and source is not None:
                value = getattr(source, field, _ABSENT)
        if value is _ABSENT and config is not None:
            findings.add(
                "standard_config_unreadable",
                "Tell the operator: the catalogue's entry has a field that its own architecture does not have.",
                found=f"{entry.base_model}: structure: {field}",
                expected=f"a field of {type(text).__name__}",
            )
            continue
        value = fields.get(field) if value is _ABSENT else value
        if value != standard:
            findings.add(
                "structure_mismatch",
                _SAME_AS_BASE,
                file=CONFIG,
                found=f"{field} {value}" if value is not None else f"no {field}",
                expected=f"{field} {standard}, as {entry.base_model} has",
            )
