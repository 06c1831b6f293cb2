"""The declared precision against the catalogue, quantization_config and what lies in the weight files."""

from typing import Any

from app.catalog.entries import CatalogEntry
from app.core.specs import Precision
from app.weights.checkpoint import Checkpoint
from app.weights.finding_list import FindingList
from app.weights.folder_contents import CONFIG
from app.weights.quantization import Scheme, read_scheme
from app.weights.stored_tensors import first_quantized

_DECLARE = "Declare the precision that these weights have, or upload weights of the declared one."


def check_declared(
    fields: dict[str, Any], entry: CatalogEntry, precision: Precision, findings: FindingList, made_here: bool = False
) -> Scheme | None:
    """The scheme that config.json describes, None where it describes none."""
    allowed: tuple[Precision, ...] = (*entry.upload_precisions, *(entry.compress if made_here else ()))
    if precision not in allowed:
        findings.add(
            "precision_unsupported",
            "Declare a precision that the catalogue allows for this base model, and upload weights of it.",
            found=precision,
            expected=", ".join(allowed),
        )
    config = fields.get("quantization_config") or fields.get("compression_config")
    if not config:
        if precision != "BF16":
            findings.add(
                "quantization_config_missing",
                "Take config.json from where the quantized weights come from, or declare BF16.",
                file=CONFIG,
                found="no quantization_config",
                expected=f"a quantization_config of {precision}",
            )
        return None
    scheme = read_scheme(config)
    if precision == "BF16":
        findings.add(
            "quantization_config_extra",
            "Declare the precision of these weights, or remove quantization_config if they are not quantized.",
            file=CONFIG,
            found=scheme.description,
            expected="no quantization_config",
        )
    elif scheme.precision != precision:
        findings.add(
            "precision_mismatch",
            _DECLARE,
            file=CONFIG,
            found=scheme.description + (f", which is {scheme.precision}" if scheme.precision else ""),
            expected=precision,
        )
    return scheme


def check_stored(checkpoint: Checkpoint, scheme: Scheme | None, precision: Precision, findings: FindingList) -> bool:
    """Whether the tensors lie as config.json says, so that they can be compared with the architecture's."""
    if scheme is not None:
        if not scheme.known:
            return False
        if checkpoint.tensors and first_quantized(checkpoint.tensors) is None:
            findings.add(
                "precision_mismatch",
                "Remove quantization_config and declare BF16, or upload the quantized weights.",
                found=f"{_dtypes(checkpoint)} weights only",
                expected=scheme.description,
            )
            return False
        return True
    quantized = first_quantized(checkpoint.tensors)
    if quantized is None:
        return True
    if precision == "BF16":
        findings.add(
            "precision_mismatch",
            _DECLARE,
            file=checkpoint.file_of[quantized],
            tensor=quantized,
            found=f"{checkpoint.tensors[quantized].dtype}, a quantized weight",
            expected="BF16, F16 or F32, and no quantization",
        )
    return False


def _dtypes(checkpoint: Checkpoint) -> str:
    return ", ".join(sorted({tensor.dtype for tensor in checkpoint.tensors.values()}))
