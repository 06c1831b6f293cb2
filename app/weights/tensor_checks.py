"""The tensors in a checkpoint against those of the architecture: each there once, of its shape, of a dtype allowed."""

from app.weights.checkpoint import Checkpoint
from app.weights.expected_tensors import Architecture
from app.weights.finding_list import FindingList
from app.weights.quantization import Scheme
from app.weights.safetensors_headers import Shape
from app.weights.stored_tensors import Stored, StoredTensor, unpack

PLAIN_DTYPES = ("BF16", "F16", "F32")


def check_tensors(
    checkpoint: Checkpoint, architecture: Architecture, scheme: Scheme | None, findings: FindingList
) -> None:
    """What is missing, unexpected, of another shape or dtype, or quantized by halves goes into `findings`."""
    stored = unpack(checkpoint.tensors, scheme)
    expected = architecture.tensors
    strays = {name: tensor.shape for name, tensor in stored.weights.items() if name not in expected}
    absent = {name for name in expected if name not in stored.weights}
    used, met = architecture.settle(strays, absent) if strays and absent else (set(), set())
    for name in sorted(absent - met - _excused(absent, stored.weights.keys() | met, architecture)):
        if checkpoint.would_have(name):
            findings.add(
                "weights_unloadable",
                "Save the whole model again: save_pretrained writes every tensor.",
                file=checkpoint.weight_map.get(name),
                tensor=name,
                found="missing",
                expected=_told(expected[name]),
            )
    for name in sorted(strays.keys() - used):
        if not architecture.is_harmless(name):
            tensor = stored.weights[name]
            findings.add(
                "weights_unloadable",
                "Remove the tensor, or check that config.json belongs to these weights.",
                file=checkpoint.file_of.get(tensor.name),
                tensor=tensor.name,
                found=f"{tensor.dtype} {_told(tensor.shape)}",
                expected="no such tensor in this architecture",
            )
    for name, shape in expected.items():
        if found := stored.weights.get(name):
            _check_tensor(name, found, shape, checkpoint, architecture, findings)
            if scheme:
                _check_quantized(name, found, shape, stored, scheme, checkpoint, findings)
    if scheme:
        _check_coverage(stored, architecture, scheme, checkpoint, findings)


def _excused(absent: set[str], present: set[str], architecture: Architecture) -> set[str]:
    """Tensors that may be missing: tied to one that is there, or made anew by every loader."""
    excused = {name for name in absent if architecture.may_miss(name)}
    for one, other in architecture.tied:
        excused |= {one} if other in present else set()
        excused |= {other} if one in present else set()
        if one not in present and other not in present:
            excused.add(one)  # one missing tensor is one finding
    return excused


def _check_tensor(
    name: str,
    tensor: StoredTensor,
    shape: Shape,
    checkpoint: Checkpoint,
    architecture: Architecture,
    findings: FindingList,
) -> None:
    file = checkpoint.file_of.get(tensor.name)
    if not tensor.fits(shape):
        findings.add(
            "weights_unloadable",
            "Check that config.json belongs to these weights; the shapes follow from it.",
            file=file,
            tensor=tensor.name,
            found=_told(tensor.shape),
            expected=_told(shape),
        )
    if not tensor.quantized and tensor.dtype not in PLAIN_DTYPES and name not in architecture.buffers:
        findings.add(
            "weights_unloadable",
            "Save the weights in bfloat16, float16 or float32.",
            file=file,
            tensor=tensor.name,
            found=tensor.dtype,
            expected=", ".join(PLAIN_DTYPES),
        )


def _check_quantized(
    name: str,
    tensor: StoredTensor,
    shape: Shape,
    stored: Stored,
    scheme: Scheme,
    checkpoint: Checkpoint,
    findings: FindingList,
) -> None:
    if not tensor.quantized or len(shape) != 2:
        return
    module = name.rpartition(".")[0]
    companions = stored.companions.get(module, {})
    for last in scheme.required:
        if last not in companions and checkpoint.would_have(f"{module}.{last}"):
            findings.add(
                "weights_unloadable",
                "Quantize again: each quantized weight needs its scales beside it.",
                file=checkpoint.file_of.get(tensor.name),
                tensor=f"{module}.{last}",
                found="missing",
                expected=f"{last} beside {tensor.name}",
            )
    scale_name = next((last for last in scheme.required if "weight_scale" in last or last == "scales"), "")
    scale, shapes = companions.get(scale_name), scheme.scale_shapes(shape)
    if scale is None or shapes is None:
        return
    found = scale.shape[::-1] if scheme.method == "awq" else scale.shape
    if found not in shapes:
        findings.add(
            "weights_unloadable",
            "Check that quantization_config belongs to these weights; the shapes of scales follow from it.",
            file=checkpoint.file_of.get(f"{module}.{scale_name}"),
            tensor=f"{module}.{scale_name}",
            found=_told(scale.shape),
            expected=" or ".join(sorted(_told(each[::-1] if scheme.method == "awq" else each) for each in shapes)),
        )


def _check_coverage(
    stored: Stored, architecture: Architecture, scheme: Scheme, checkpoint: Checkpoint, findings: FindingList
) -> None:
    """No linear layer is left plain that quantization_config says is quantized: engines would look for its scales."""
    modules = {name.removesuffix(".weight") for name in architecture.linear}
    if scheme.ignored is None or not scheme.ignored <= modules:
        return
    for name in sorted(architecture.linear & architecture.tensors.keys()):
        tensor = stored.weights.get(name)
        if tensor and not tensor.quantized and name.removesuffix(".weight") not in scheme.ignored:
            findings.add(
                "weights_unloadable",
                "Name the module in quantization_config's ignore list, or quantize it.",
                file=checkpoint.file_of.get(tensor.name),
                tensor=tensor.name,
                found=f"{tensor.dtype}, not quantized",
                expected=scheme.description,
            )


def _told(shape: Shape) -> str:
    return str(list(shape))
