"""What compression has cost a version in quality, and how much of that is let pass. Pure."""

from pydantic import BaseModel, ConfigDict

from app.core.specs import Spec


class Probe(BaseModel):
    """A small task that has right answers: how many of `of` were right."""

    model_config = ConfigDict(frozen=True)

    name: str
    before: int
    after: int
    of: int


class QualityCard(BaseModel):
    """A version beside the original, measured on one machine."""

    model_config = ConfigDict(frozen=True)

    perplexity_before: float
    perplexity_after: float
    kl_mean: float
    """Of next-token distributions, in nats: the version's from the original's."""
    kl_p99: float
    greedy_agreement: float
    """From 0 to 1: the part of `greedy_tokens` on which both decide alike."""
    greedy_tokens: int
    probes: tuple[Probe, ...] = ()
    size_before_bytes: int
    size_after_bytes: int
    load_s_before: float | None = None
    load_s_after: float | None = None
    tokens_per_s_before: float | None = None
    tokens_per_s_after: float | None = None
    concurrency: int | None = None
    where: str = ""
    """The machine, and its threads."""
    held_out_tokens: int
    held_out_sha256: str
    measured_with: dict[str, str] = {}


class Gate(Spec):
    """The most that a version may lose; with None for the default of its precision."""

    perplexity_increase: float | None = None
    """The share by which it may rise."""
    kl_mean: float | None = None
    greedy_agreement: float | None = None
    """The least."""
