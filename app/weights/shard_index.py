"""The index of a checkpoint in several files: what it says, and whether the files agree."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath

from app.store.folders import Folder, FolderFile
from app.weights.finding_list import FindingList
from app.weights.small_files import read_object

MAX_INDEX_BYTES = 32 << 20
MAX_TENSORS = 300_000
"""In files; the largest known model, of a trillion parameters, has half as many."""

_MEND_INDEX = "Save the model again, or rebuild the index from the files: it must name each tensor's file."


def read_weight_map(folder: Folder, index: FolderFile, findings: FindingList) -> dict[str, str]:
    """Tensor -> file, empty where the index cannot be used. Raises SourceChanged, StoreError."""
    try:
        found = read_object(folder, index, MAX_INDEX_BYTES, lists=1000, fields=MAX_TENSORS + 1000).get("weight_map")
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
            raise ValueError("no weight_map from tensor names to file names")
    except ValueError as error:
        findings.add(
            "index_mismatch", _MEND_INDEX, file=index.name, found=str(error), expected="weight_map: tensor -> file"
        )
        return {}
    files: dict[str, str] = {}
    return {tensor: files.setdefault(name, name) for tensor, name in found.items()}


def find_named(
    names: Iterable[str], top: Mapping[str, FolderFile], index: str, findings: FindingList
) -> dict[str, FolderFile]:
    """Those of the files that an index names which are there."""
    found = {}
    for name in sorted(set(names)):
        if PurePosixPath(name).name != name:
            findings.add("index_mismatch", _MEND_INDEX, file=index, found=name, expected="a plain file name")
        elif name not in top:
            findings.add(
                "index_mismatch",
                "Upload the missing file too; the index names it.",
                file=name,
                found="missing",
                expected=f"a file that {index} names",
            )
        else:
            found[name] = top[name]
    return found


def check_index(
    weight_map: Mapping[str, str],
    file_of: Mapping[str, str],
    unread: Collection[str],
    index: str,
    findings: FindingList,
) -> None:
    """Each tensor is in the file that the index names, but for files that could not be read."""
    for tensor, named in weight_map.items():
        actual = file_of.get(tensor)
        if actual != named and named not in unread:
            findings.add(
                "index_mismatch",
                _MEND_INDEX,
                file=named,
                tensor=tensor,
                found=f"in {actual}" if actual else "in no file",
                expected=f"in {named}, as {index} says",
            )
    for tensor, actual in file_of.items():
        if tensor not in weight_map:
            findings.add(
                "index_mismatch",
                "Rebuild the index so that it names every tensor.",
                file=actual,
                tensor=tensor,
                found="not in the index",
                expected=f"named in {index}",
                warning=True,
            )


def miss_index(index: str, files: Collection[FolderFile], findings: FindingList) -> None:
    """Several files without an index still load, but nobody can tell whether one is missing."""
    findings.add(
        "index_missing",
        "Save the model again with save_pretrained, which writes the index.",
        file=index,
        found=f"{len(files)} weight files",
        expected=index,
        warning=True,
    )
