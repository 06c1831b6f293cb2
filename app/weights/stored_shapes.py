"""The shapes of published weights, by a few kilobytes of each file."""

from functools import partial

from app.core.compression_plan import Stored
from app.store.folders import Folder
from app.weights.quantization import LOW_DTYPES
from app.weights.safetensors_headers import HeaderError, HeaderTensor, fetch_header, parse_header
from app.weights.small_files import CONFIG_BYTES, read_object

_CONFIG, _WEIGHTS = "config.json", ".safetensors"


def read_stored(folder: Folder, most_files: int | None = None) -> Stored | None:
    """None where there is no config, no weights, or more than `most_files` with weights.

    Raises HeaderError that names the file for one that is damaged, SourceChanged, StoreError.
    """
    files = {file.name: file for file in folder.files()}
    shards = [file for name, file in files.items() if name.endswith(_WEIGHTS) and "/" not in name]
    if _CONFIG not in files or not shards or (most_files is not None and len(shards) > most_files):
        return None
    tensors: dict[str, HeaderTensor] = {}
    file = files[_CONFIG]
    try:
        config = read_object(folder, file, CONFIG_BYTES)
        for file in shards:
            raw = fetch_header(partial(folder.read, file), file.size_bytes)
            header = parse_header(raw, file.size_bytes - 8 - len(raw))
            if header.problems:
                raise HeaderError(header.problems[0].text)
            tensors |= header.tensors
    except ValueError as damaged:
        raise HeaderError(f"{file.name}: {damaged}") from None
    return Stored(
        config,
        shapes={name: tensor.shape for name, tensor in tensors.items()},
        sizes={name: tensor.end - tensor.start for name, tensor in tensors.items()},
        low=next((name for name, tensor in tensors.items() if tensor.dtype in LOW_DTYPES), None),
    )
