"""One base model of the catalogue: what it is, and what the platform does with it."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from app.core.model_specs import Source
from app.core.specs import Precision, Spec

UploadPrecision = Literal["BF16", "W8A8_FP8", "AWQ-W4A16", "W4A8"]
"""SmoothQuant-W8A8 is not among them: it only ever comes from compression (S3, chapter 4)."""

Strategy = Literal["SmoothQuant-W8A8", "AWQ-W4A16", "W8A8_FP8", "W4A8"]
Tuning = Literal["full", "lora"]
SourceList = Literal["ark-custom", "ark-unit", "maas", "vertex", "modelunit"]


def _ordered(limits: tuple[int, int]) -> tuple[int, int]:
    if limits[0] > limits[1]:
        raise ValueError(f"the low end {limits[0]} is above the high end {limits[1]}")
    return limits


def _nameable(uri: str) -> str:
    try:
        return Source(uri=uri).uri
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from None


Name = Annotated[str, Field(pattern=r"^[^\W_][\w.-]{0,63}$")]
"""1 to 64 letters of any script, digits, '_', '-' or '.'; no '/', for names are parts of URLs."""
Count = Annotated[int, Field(ge=1)]
Range = Annotated[tuple[Count, Count], AfterValidator(_ordered)]
"""(low, high)."""


class Patch(Spec):
    """Edits that a model's own code file needs before custom weights can be used (S3, note on weights).

    The file is read as text and never run; a folder without it needs no patch.
    """

    file: str
    must_contain: tuple[str, ...] = ()
    must_not_contain: tuple[str, ...] = ()
    advice: str

    def unmet(self, text: str) -> list[str]:
        """What is still wrong with a file of this text, a phrase each; comments and white space do not count."""
        code = _code(text)
        missing = [f"lacks {line}" for line in self.must_contain if _code(line) not in code]
        return missing + [f"has {line}" for line in self.must_not_contain if _code(line) in code]


def _code(text: str) -> str:
    """Good enough for the few lines that patches are about: none of them has '#' in a string."""
    return "".join("".join(line.partition("#")[0].split()).rstrip("\\") for line in text.splitlines())


class CatalogEntry(Spec):
    """A base model. Sizes are in billions of parameters, lengths in tokens, times in minutes."""

    base_model: Name
    """The name people declare; unique in the catalogue, and so are all aliases."""
    aliases: tuple[Name, ...] = ()
    series: str
    type: Literal["text-generation"] = "text-generation"
    scenarios: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes."""
    architectures: Annotated[tuple[str, ...], Field(min_length=1)]
    """Class names as config.json has them; any of them will do."""
    parameters_b: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """As the name has it where it names a size; all experts counted."""
    source_lists: tuple[SourceList, ...] = ()
    """Which documents list it: Ark custom models (S0), Ark model units (S1), MaaS (S3), Vertex (S4), or only we do."""
    upload_precisions: Annotated[tuple[UploadPrecision, ...], Field(min_length=1)] = ("BF16",)
    tune: tuple[Tuning, ...] = ()
    compress: tuple[Strategy, ...] = ()
    deploy: bool = True
    max_length_tokens: Count = 4096
    """Default for prompt plus answer (S3, chapter 8)."""
    recommended_qps: dict[Precision, Count] = {}
    """Per instance (S3, table 8-2)."""
    tuning_tokens_per_s_per_card: dict[Tuning, Range] = {}
    """S3, table 6-4, where full is called sft."""
    compression_minutes: dict[Strategy, Range] = {}
    """S3, table 7-4."""
    custom_weights_only: bool = False
    """There are no recommended weights: people bring their own (S3, table 5-1)."""
    recommended_source: Annotated[str, AfterValidator(_nameable)] | None = None
    """Where the operator keeps the weights that are taken when a model names no source: s3:// or file:///."""
    patch: Patch | None = None
    tool_parser: str | None = None
    """vLLM's parser of this family's tool calls; None: its template knows no tools."""
    reasoning_parser: str | None = None
    """vLLM's parser that parts what the model thinks from what it says; None: it says all it thinks."""
    structure: dict[str, Count] = {}
    """What fixes the shape in the open model's config.json, or in its text_config where it has one; empty: unknown."""

    @model_validator(mode="after")
    def _only_of_what_it_supports(self) -> "CatalogEntry":
        precisions: tuple[Precision, ...] = (*self.upload_precisions, *self.compress)
        _check_keys("recommended_qps", self.recommended_qps, precisions, "upload_precisions or compress")
        _check_keys("tuning_tokens_per_s_per_card", self.tuning_tokens_per_s_per_card, self.tune, "tune")
        _check_keys("compression_minutes", self.compression_minutes, self.compress, "compress")
        if self.custom_weights_only and self.recommended_source:
            raise ValueError("recommended_source is given, but custom_weights_only too")
        return self


def _check_keys(field: str, keys: Iterable[str], supported: tuple[str, ...], where: str) -> None:
    for key in keys:
        if key not in supported:
            raise ValueError(f"{field} has {key}, which is not in {where}")
