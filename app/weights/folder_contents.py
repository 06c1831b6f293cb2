"""Which files of a weight folder are what, and whether all that a model needs is there (S0 and S4, file lists)."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath

from app.catalog.entries import CatalogEntry
from app.store.folders import FolderFile
from app.weights.finding_list import FindingList

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
INDEX = "model.safetensors.index.json"
PICKLED_INDEX = "pytorch_model.bin.index.json"

TOKENIZERS = ("tokenizer.json", TOKENIZER_CONFIG, "tokenizer.model")
_CODE = ("*.py", "*.pyc", "*.pyd", "*.so")
_NO_WEIGHTS = ("adapter_model.*", "training_args.bin", "optimizer*.bin", "scheduler*.bin", "random_states*")


@dataclass(frozen=True)
class Contents:
    """The files of a folder by what they are; weights, configs and tokenizers count only where loaders look: on top."""

    top: dict[str, FolderFile]
    """What lies in the folder itself, by name."""
    names: tuple[str, ...]
    """All files, subfolders included."""
    safetensors: tuple[FolderFile, ...]
    pickled: tuple[FolderFile, ...]
    """*.bin and *.ckpt."""

    @property
    def has_tokenizer(self) -> bool:
        """Whether at least one of the files is there that a tokenizer can be loaded from."""
        return any(name in self.top for name in TOKENIZERS)

    @property
    def adapter_only(self) -> bool:
        """A LoRA adapter without the weights it belongs to."""
        return "adapter_config.json" in self.top and not self.safetensors and not self.pickled

    @property
    def served(self) -> tuple[FolderFile, ...]:
        """The safetensors files without a second copy in Mistral's own form: engines would load both."""
        plain = tuple(file for file in self.safetensors if not file.name.startswith("consolidated"))
        return plain or self.safetensors


def sort_files(files: Iterable[FolderFile]) -> Contents:
    """Tell the files apart by their names."""
    every = sorted(files, key=lambda file: file.name)
    top = {file.name: file for file in every if "/" not in file.name}
    weights = [file for name, file in top.items() if not any(fnmatch(name, pattern) for pattern in _NO_WEIGHTS)]
    return Contents(
        top=top,
        names=tuple(file.name for file in every),
        safetensors=tuple(file for file in weights if file.name.endswith(".safetensors")),
        pickled=tuple(file for file in weights if file.name.endswith((".bin", ".ckpt"))),
    )


def check_contents(contents: Contents, entry: CatalogEntry, findings: FindingList) -> None:
    """Required files, exactly one config.json, no code but the file that the entry's patch is about."""
    for name in contents.names:
        patched = entry.patch is not None and name == entry.patch.file
        if not patched and any(fnmatch(name.lower(), pattern) for pattern in _CODE):
            findings.add("code_refused", "Remove the file; models and tokenizers must load without it.", file=name)
    if contents.adapter_only:
        findings.add(
            "adapter_only",
            "Merge the adapter into the base model (peft: merge_and_unload, then save_pretrained), upload the result.",
            file="adapter_config.json",
            found="no base weights",
            expected="*.safetensors with the merged weights",
        )
        return
    _check_config_count(contents, findings)
    if not contents.safetensors and not contents.pickled:
        below = [name for name in contents.names if name.endswith((".safetensors", ".bin", ".ckpt"))]
        findings.add(
            "weights_unloadable",
            "Name the folder in which the weights themselves lie, beside config.json.",
            found=f"only {below[0]}" if below else "no weight file",
            expected="*.safetensors, *.bin or *.ckpt in the folder itself",
        )
    if not contents.has_tokenizer:
        findings.add(
            "tokenizer_unloadable",
            "Add the tokenizer's files: tokenizer.save_pretrained writes them.",
            found="no tokenizer file",
            expected=f"one of {', '.join(TOKENIZERS)}",
        )


def _check_config_count(contents: Contents, findings: FindingList) -> None:
    configs = [name for name in contents.names if PurePosixPath(name).name == CONFIG]
    if configs != [CONFIG]:
        findings.add(
            "config_unreadable",
            "Keep exactly one config.json, in the folder itself.",
            file=CONFIG,
            found=", ".join(configs) or "missing",
            expected="exactly one config.json, in the folder itself",
        )
