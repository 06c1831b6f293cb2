"""The verdict on a weight folder: everything that can be said from configs, tokenizer, index and headers alone."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.catalog.entries import CatalogEntry
from app.core.findings import Facts, Finding, Report
from app.core.job_specs import MachineMemory
from app.core.needs import weights_in_memory_bytes
from app.core.specs import Precision
from app.store.folders import Folder, RefusedEntry, SourceChanged
from app.weights.checkpoint import Checkpoint, check_pickled, read_checkpoint
from app.weights.config_checks import check_auto_map, check_config
from app.weights.counted_folder import CountedFolder
from app.weights.expected_tensors import Architecture, model_class
from app.weights.finding_list import FindingList
from app.weights.folder_contents import (
    CONFIG,
    GENERATION_CONFIG,
    TOKENIZER_CONFIG,
    Contents,
    check_contents,
    sort_files,
)
from app.weights.generation_checks import check_chat_template, check_generation
from app.weights.linear_layers import has_experts, heads_of, linear_layers
from app.weights.memory import check_memory, kv_bytes, kv_bytes_per_token, kv_windows
from app.weights.model_config import ConfigRefused
from app.weights.patches import check_patch
from app.weights.precision_checks import check_declared, check_stored
from app.weights.quantization import Scheme
from app.weights.small_files import CONFIG_BYTES, copy_tokenizer, parse_object, read_object
from app.weights.tensor_checks import check_tensors
from app.weights.tokenizer import check_tokenizer

TokenizerCheck = Callable[[Path, int | None], list[Finding]]

log = logging.getLogger(__name__)


def validate(
    folder: Folder,
    entry: CatalogEntry,
    precision: Precision,
    work_dir: Path,
    machines: Sequence[MachineMemory],
    tokenizer_check: TokenizerCheck = check_tokenizer,
    made_here: bool = False,
) -> Report:
    """What is wrong with the folder, and what it holds. Never raises for what the folder contains or how it is read.

    Takes seconds whatever the size: of weight files only headers are read. `work_dir` is empty and private; the
    small files are put there. `made_here`: they may have a precision that weights from elsewhere may not.
    """
    counted = CountedFolder(folder)
    findings = FindingList()
    validation = _Validation(counted, entry, precision, findings, made_here)
    try:
        validation.run(work_dir, machines, tokenizer_check)
    except RefusedEntry as error:
        findings.add(
            "path_refused",
            "Remove it, or replace it by the plain file itself.",
            file=error.name,
            found=error.kind,
            expected="plain files with plain names",
        )
    except SourceChanged as error:
        findings.add("source_changed", "Wait until the upload to the source is over, then try again.", file=error.name)
    except OSError as error:
        log.warning("a weight folder cannot be read: %s", error)
        findings.add(
            "source_unreadable",
            "Check the folder's address and the permissions, and whether the object store works.",
            found=error if type(error).__module__.startswith("app.") else type(error).__name__,
        )
    except Exception:
        log.exception("validation failed unexpectedly")
        findings.add("unknown_error", "See the log of the validation.")
    return Report(findings=findings.all(), facts=validation.facts, read_bytes=counted.read_bytes)


class _Validation:
    """One run, step by step; `facts` is what is known when it ends, however it ends."""

    def __init__(
        self, folder: Folder, entry: CatalogEntry, precision: Precision, findings: FindingList, made_here: bool
    ) -> None:
        self._folder = folder
        self._entry = entry
        self._precision = precision
        self._made_here = made_here
        self._findings = findings
        self.facts = Facts()

    def run(self, work_dir: Path, machines: Sequence[MachineMemory], tokenizer_check: TokenizerCheck) -> None:
        contents = sort_files(self._folder.files())
        check_contents(contents, self._entry, self._findings)
        check_patch(self._folder, contents, self._entry, self._findings)
        if contents.adapter_only:
            return
        fields = self._read(contents, CONFIG, "config_unreadable")
        generation = self._read(contents, GENERATION_CONFIG, "generation_config_unreadable")
        if generation is not None:
            check_generation(generation, self._findings)
        config = scheme = architecture = None
        if fields is not None:
            config = check_config(fields, self._entry, self._findings)
            scheme = check_declared(fields, self._entry, self._precision, self._findings, self._made_here)
        if fields is not None and config is not None:
            architecture = self._architecture(config, fields["architectures"][0])
        if scheme is not None:
            self.facts = self.facts.model_copy(update=scheme.facts)
        weights_bytes = self._check_weights(contents, architecture, scheme, sure=fields is not None)
        if config is not None:
            self._check_memory(config, architecture, weights_bytes, scheme, machines)
        self._check_tokenizer(contents, config, work_dir, tokenizer_check)

    def _read(self, contents: Contents, name: str, code: str) -> dict[str, Any] | None:
        file = contents.top.get(name)
        if file is None:
            return None
        try:
            return read_object(self._folder, file, CONFIG_BYTES)
        except ValueError as error:
            self._findings.add(
                code, "Make the file a JSON object in UTF-8.", file=name, found=str(error), expected="a JSON object"
            )
            return None

    def _architecture(self, config: Any, class_name: str) -> Architecture | None:
        if model_class(class_name) is None:
            self._findings.add(
                "template_selection_error",
                "Tell the operator: the catalogue's entry names a class that transformers does not have.",
                file=CONFIG,
                found=class_name,
                expected="a model class of transformers",
            )
            return None
        try:
            architecture = Architecture(config, class_name)
        except ConfigRefused as error:
            self._findings.add(
                "structure_mismatch",
                "Take config.json from the base model, or from where these weights were made.",
                file=CONFIG,
                found=error.found,
                expected=error.expected,
            )
            return None
        text = config.get_text_config()
        length = getattr(text, "max_position_embeddings", None)
        window_bytes, window_tokens = kv_windows(config)
        heads, head_dim = heads_of(config)
        self.facts = Facts(
            architecture=class_name,
            parameters=architecture.parameters,
            max_length_tokens=length if type(length) is int else None,
            kv_bytes_per_token=kv_bytes_per_token(config),
            kv_window_bytes_per_token=window_bytes,
            kv_window_tokens=window_tokens,
            vocabulary=text.vocab_size,
            heads=heads,
            head_dim=head_dim,
        )
        return architecture

    def _check_weights(
        self, contents: Contents, architecture: Architecture | None, scheme: Scheme | None, *, sure: bool
    ) -> int:
        """`sure` means that config.json could be read, so that what it does not say counts."""
        checkpoint = None
        if contents.safetensors:
            checkpoint = read_checkpoint(self._folder, contents, self._findings)
            weights_bytes = checkpoint.weights_bytes
            if sure:
                self._compare(checkpoint, architecture, scheme)
        else:
            weights_bytes = check_pickled(self._folder, contents, self._findings)
        self.facts = self.facts.model_copy(update={"weights_bytes": weights_bytes})
        if architecture is not None and (scheme is None or scheme.known):
            linear = linear_layers(architecture, checkpoint, scheme)
            experts = has_experts(architecture, checkpoint, scheme)
            self.facts = self.facts.model_copy(update={"linear": linear, "experts": experts})
        return weights_bytes

    def _compare(self, checkpoint: Checkpoint, architecture: Architecture | None, scheme: Scheme | None) -> None:
        comparable = check_stored(checkpoint, scheme, self._precision, self._findings)
        if comparable and architecture is not None:
            check_tensors(checkpoint, architecture, scheme, self._findings)

    def _check_memory(
        self,
        config: Any,
        architecture: Architecture | None,
        weights_bytes: int,
        scheme: Scheme | None,
        machines: Sequence[MachineMemory],
    ) -> None:
        length = min(self._entry.max_length_tokens, self.facts.max_length_tokens or self._entry.max_length_tokens)
        parameters = architecture.parameters if architecture is not None else None
        needed = weights_in_memory_bytes(weights_bytes, parameters, quantized=scheme is not None)
        check_memory(needed, kv_bytes(config, length), length, machines, self._findings)

    def _check_tokenizer(
        self, contents: Contents, config: Any, work_dir: Path, tokenizer_check: TokenizerCheck
    ) -> None:
        copy_tokenizer(self._folder, contents.top, work_dir, self._findings)
        tokenizer_config = {}
        copied = work_dir / TOKENIZER_CONFIG
        if copied.exists():
            with suppress(ValueError):  # then the tokenizer will not load, and the check says so
                tokenizer_config = parse_object(copied.read_bytes())
        check_auto_map(tokenizer_config, TOKENIZER_CONFIG, self._findings)
        if not contents.has_tokenizer:
            check_chat_template(contents, tokenizer_config, self._findings)
            return
        found = tokenizer_check(work_dir, config.get_text_config().vocab_size if config is not None else None)
        self._findings.extend(found)
        codes = {each.code for each in found}
        if codes & {"tokenizer_unloadable", "needs_remote_code"}:
            check_chat_template(contents, tokenizer_config, self._findings)
        else:
            self.facts = self.facts.model_copy(update={"chat_template": "chat_template_missing" not in codes})
