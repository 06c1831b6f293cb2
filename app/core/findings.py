"""What is wrong with weights, in stable words: a code, a message, where, what was found, what was expected, a fix."""

from typing import Literal, TypedDict, Unpack

from pydantic import BaseModel, ConfigDict

MESSAGES = {
    "unknown_error": (
        "Unknown error, please contact the operation and maintenance personnel or check the log to locate the "
        "specific problem."
    ),
    "template_selection_error": "Backend model template selection error (metadata error).",
    "standard_config_unreadable": "Failed to read standard config.json in the background.",
    "generation_config_unreadable": "Failed to read generation_config.json.",
    "do_sample_inconsistent": (
        "The value of do_sample is not set to true in generation_config.json, which is inconsistent with the "
        "configured sampling parameters such as temperature, top_p, top_k etc."
    ),
    "config_unreadable": "Failed to read user config.json.",
    "quantization_config_missing": (
        "The quantization_config field is missing in config.json, please check whether it is awq quantization weight."
    ),
    "quantization_config_extra": (
        "There is an extra quantization_config field in config.json. Please check whether it is a non-quantized weight."
    ),
    "structure_mismatch": (
        "Key fields describing the model structure are missing from config.json, or their values are inconsistent "
        "with standard open source."
    ),
    "tokenizer_unloadable": "Error loading tokenizer in transformers.",
    "weights_unloadable": "Error loading weights in transformers.",
    # The eleven above are S3's, table 5-2, word for word. What follows is ours.
    "adapter_only": "The folder holds a LoRA adapter only; upload weights with the adapter merged into them.",
    "chat_template_missing": "The tokenizer has no chat template, so chat calls would fail.",
    "chat_template_broken": "The chat template cannot render a sample conversation.",
    "code_refused": "The folder contains code, or asks for code to be run; neither is ever loaded.",
    "compression_failed": "The compression came to no result.",
    "compression_impossible": "The values of the job do not go with the model.",
    "compression_memory_short": "The compression takes more memory than the machine has for it.",
    "dataset_too_large": "There is no room on the node's disk for the dataset.",
    "dataset_unreadable": "The dataset cannot be read.",
    "dataset_wrong": "The dataset is not in one of the formats that can be trained on.",
    "disk_short": "There is no room on the node's disk to convert these weights.",
    "index_missing": "There are several weight files and no index; an index is recommended.",
    "index_mismatch": "The index and the weight files do not agree.",
    "memory_short": "No machine type has the memory for these weights and one request of full length.",
    "needs_patch": "This model's own files must be patched before custom weights can be used.",
    "needs_remote_code": "The tokenizer can only be loaded by running the folder's own code, which is refused.",
    "output_not_empty": "The output folder is not empty, and the files in it are not to be replaced.",
    "output_unusable": "The output folder cannot be used.",
    "path_refused": "The folder contains something that is not a plain file with a plain name.",
    "plan_impossible": "The values of the job do not go with the dataset.",
    "pickle_refused": "The pickled weights cannot be loaded without running code, so they are refused.",
    "precision_mismatch": "The weights are not of the declared precision.",
    "precision_unsupported": "This precision cannot be uploaded for this base model.",
    "source_changed": "The source changed while it was being read.",
    "source_unreadable": "The source cannot be read.",
    "training_failed": "The training came to no result.",
    "version_exists": "The model has a version of this precision already.",
    "vocabulary_mismatch": "The tokenizer's vocabulary does not fit the embedding.",
}
"""Code -> message. Both are stable: people and programs match on them."""

FINDINGS_LIMIT = 100
TEXT_LIMIT = 500


class Finding(BaseModel):
    """One thing that is wrong with a weight folder, or (severity "warning") that could be better."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    severity: Literal["error", "warning"] = "error"
    file: str | None = None
    tensor: str | None = None
    found: str | None = None
    expected: str | None = None
    fix: str


class LinearLayer(BaseModel):
    """Linear layers of one name and one shape."""

    model_config = ConfigDict(frozen=True)

    name: str
    """The last part of it, such as q_proj."""
    rows: int
    """Outputs."""
    columns: int
    """Inputs."""
    count: int = 1
    """How many there are."""


class Facts(BaseModel):
    """What the headers and configs say of sound weights; None where they do not say."""

    model_config = ConfigDict(frozen=True)

    architecture: str | None = None
    parameters: int | None = None
    weights_bytes: int | None = None
    max_length_tokens: int | None = None
    kv_bytes_per_token: int | None = None
    """Of the KV cache in BF16, over all layers."""
    kv_window_bytes_per_token: int = 0
    """The part of it that belongs to layers which keep no more than `kv_window_tokens`."""
    kv_window_tokens: int | None = None
    """The largest window of those layers."""
    scaled_by: str | None = None
    """What of quantized weights has one scale: "tensor", "channel", "group" or "block"."""
    group_size: int | None = None
    """Inputs of a group that has one scale."""
    block: tuple[int, int] | None = None
    """Outputs and inputs of a block that has one scale."""
    activations: str | None = None
    """As what quantized layers take their inputs in: "int8" or "fp8"; None: in 16 bits, or not known."""
    linear: tuple[LinearLayer, ...] = ()
    """The linear layers of plain weights but for the last, lm_head; of quantized ones those that are quantized."""
    experts: bool | None = None
    """Whether it is a mixture of experts, and of quantized weights whether those are quantized."""
    heads: int | None = None
    """Of attention."""
    head_dim: int | None = None
    """The width of one; None for latent attention, which has several."""
    vocabulary: int | None = None
    chat_template: bool | None = None
    """Whether the tokenizer has one: without it weights can be tuned, but cannot chat."""


class Report(BaseModel):
    """The verdict on a weight folder."""

    model_config = ConfigDict(frozen=True)

    findings: tuple[Finding, ...] = ()
    facts: Facts = Facts()
    read_bytes: int = 0
    """How much was read to come to it."""

    @property
    def ok(self) -> bool:
        """Whether nothing but warnings was found."""
        return all(finding.severity == "warning" for finding in self.findings)


class Where(TypedDict, total=False):
    """What a finding may say beside its code; `warning` makes it one."""

    file: str | None
    tensor: str | None
    found: object
    expected: object
    warning: bool


def finding(code: str, fix: str, **where: Unpack[Where]) -> Finding:
    """A finding with its code's own message; texts that come from the folder are cut short.

    Raises KeyError for a code that is not in MESSAGES.
    """
    return Finding(
        code=code,
        message=MESSAGES[code],
        severity="warning" if where.get("warning") else "error",
        file=_short(where.get("file")),
        tensor=_short(where.get("tensor")),
        found=_short(where.get("found")),
        expected=_short(where.get("expected")),
        fix=fix,
    )


def _short(value: object) -> str | None:
    if value is None:
        return None
    text = "".join(character if character.isprintable() else "\ufffd" for character in str(value))
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"
