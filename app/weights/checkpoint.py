"""All tensors of a folder's weight files, by their headers alone."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

from app.store.folders import Folder, FolderFile
from app.weights.finding_list import FindingList
from app.weights.folder_contents import INDEX, PICKLED_INDEX, Contents
from app.weights.safetensors_headers import Header, HeaderError, HeaderTensor, fetch_header, parse_header
from app.weights.shard_index import MAX_TENSORS, check_index, find_named, miss_index, read_weight_map

MAX_FILES = 1000
MAX_HEADERS_BYTES = 64 << 20
"""Of all files together; the largest known model has 20 MB."""
_READERS = 8

_DAMAGED = "Upload the file again, and compare its size and checksum with the original's."


@dataclass
class Checkpoint:
    """Tensors by name, and the files they are in."""

    tensors: dict[str, HeaderTensor] = field(default_factory=dict)
    file_of: dict[str, str] = field(default_factory=dict)
    weight_map: dict[str, str] = field(default_factory=dict)
    """What the index says; empty where there is none."""
    unread: set[str] = field(default_factory=set)
    """Weight files that are missing or damaged: nothing is known of their tensors."""
    broken: set[str] = field(default_factory=set)
    """Tensors that are there but damaged."""
    weights_bytes: int = 0

    def would_have(self, name: str) -> bool:
        """Whether a missing tensor is really missing, rather than damaged or in a file that could not be read."""
        if name in self.broken:
            return False
        return not self.unread or self.weight_map.get(name, next(iter(self.unread))) not in self.unread


def read_checkpoint(folder: Folder, contents: Contents, findings: FindingList) -> Checkpoint:
    """The tensors of all safetensors files that loaders read. Raises SourceChanged, StoreError."""
    checkpoint = Checkpoint()
    index = contents.top.get(INDEX)
    if index is not None:
        checkpoint.weight_map = read_weight_map(folder, index, findings)
    files = _chosen(contents, checkpoint, findings)
    if len(files) > MAX_FILES:
        findings.add(
            "weights_unloadable",
            "Save the model in fewer, larger files.",
            found=f"{len(files)} weight files",
            expected=f"at most {MAX_FILES}",
        )
        checkpoint.unread |= {file.name for file in files}
        return checkpoint
    reader = _Reader(folder)
    with ThreadPoolExecutor(_READERS) as pool:
        headers = list(pool.map(reader.read, files))
    for file, header in zip(files, headers, strict=True):
        _add(checkpoint, file, header, findings)
    if checkpoint.weight_map:
        check_index(checkpoint.weight_map, checkpoint.file_of, checkpoint.unread, INDEX, findings)
    elif len(files) > 1 and index is None:
        miss_index(INDEX, files, findings)
    return checkpoint


def check_pickled(folder: Folder, contents: Contents, findings: FindingList) -> int:
    """The names of *.bin and *.ckpt files against their index; how large they are. Raises SourceChanged, StoreError."""
    index = contents.top.get(PICKLED_INDEX)
    if index is not None:
        find_named(read_weight_map(folder, index, findings).values(), contents.top, index.name, findings)
    elif len(contents.pickled) > 1:
        miss_index(PICKLED_INDEX, contents.pickled, findings)
    return sum(file.size_bytes for file in contents.pickled)


class _Reader:
    """Reads headers from several threads; parses one at a time, for a hostile one takes a lot of memory."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._parsing = Lock()
        self._tensors = self._bytes = 0

    def read(self, file: FolderFile) -> Header | str:
        """The header, or what is wrong with the file."""
        try:
            text = fetch_header(partial(self._folder.read, file), file.size_bytes)
            with self._parsing:
                self._bytes += len(text)
                if self._bytes > MAX_HEADERS_BYTES:
                    return f"is one too many: the headers take more than {MAX_HEADERS_BYTES} bytes"
                header = parse_header(text, file.size_bytes - 8 - len(text))
                self._tensors += len(header.tensors)
                if self._tensors > MAX_TENSORS:
                    return f"is one too many: there are more than {MAX_TENSORS} tensors"
                return header
        except HeaderError as error:
            return str(error)


def _chosen(contents: Contents, checkpoint: Checkpoint, findings: FindingList) -> list[FolderFile]:
    """The files that loaders read: those the index names, else all that are served."""
    if not checkpoint.weight_map:
        return list(contents.served)
    named = find_named(checkpoint.weight_map.values(), contents.top, INDEX, findings)
    checkpoint.unread |= set(checkpoint.weight_map.values()) - named.keys()
    for name in sorted({file.name for file in contents.served} - named.keys()):
        findings.add(
            "index_mismatch",
            "Remove the file, or rebuild the index so that it names the file.",
            file=name,
            found="not in the index",
            expected="a file that the index names",
            # transformers prefers this one to the index, engines the index to this one.
            warning=name != "model.safetensors",
        )
    return list(named.values())


def _add(checkpoint: Checkpoint, file: FolderFile, header: Header | str, findings: FindingList) -> None:
    if isinstance(header, str):
        checkpoint.unread.add(file.name)
        findings.add("weights_unloadable", _DAMAGED, file=file.name, found=header)
        return
    for problem in header.problems:
        findings.add("weights_unloadable", _DAMAGED, file=file.name, tensor=problem.tensor, found=problem.text)
        if problem.tensor is not None:
            checkpoint.broken.add(problem.tensor)
    for name, tensor in header.tensors.items():
        if name in checkpoint.tensors:
            findings.add(
                "weights_unloadable",
                "Keep each tensor in one file only.",
                file=file.name,
                tensor=name,
                found=f"also in {checkpoint.file_of[name]}",
                expected="each tensor once",
            )
            continue
        checkpoint.tensors[name] = tensor
        checkpoint.file_of[name] = file.name
        checkpoint.weights_bytes += tensor.end - tensor.start
