"""The one code file of some base models that is looked at, as text: people must have patched it (S3)."""

from app.catalog.entries import CatalogEntry
from app.store.folders import Folder
from app.weights.finding_list import FindingList
from app.weights.folder_contents import Contents

_MAX_BYTES = 1 << 20


def check_patch(folder: Folder, contents: Contents, entry: CatalogEntry, findings: FindingList) -> None:
    """Whether the file has what the entry's patch asks for. Raises SourceChanged, StoreError."""
    patch = entry.patch
    file = contents.top.get(patch.file) if patch else None
    if patch is None or file is None:
        return
    if file.size_bytes > _MAX_BYTES:
        unmet = [f"has {file.size_bytes} bytes, where at most {_MAX_BYTES} are read"]
    else:
        unmet = patch.unmet(folder.read(file).decode(errors="replace"))
    for found in unmet:
        findings.add("needs_patch", patch.advice, file=patch.file, found=found, expected="the patched file")
