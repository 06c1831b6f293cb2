"""What compression has cost a version in quality, and how much of that is let pass.

How each figure is measured, and by which measurements the gate's defaults were chosen: docs/compression.md.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.core.specs import Precision, Spec

Share = Annotated[float, Field(ge=0, le=1)]


class Probe(BaseModel):
    """A small task that has right answers: how many of `of` were right."""

    model_config = ConfigDict(frozen=True)

    name: str
    before: int
    after: int
    of: int


QUALITY = "quality.json"
"""The file beside a compressed version's weights that says what they have cost: a Verdict."""


class QualityCard(BaseModel):
    """A version beside the original, measured on one machine. All figures are finite."""

    model_config = ConfigDict(frozen=True)

    perplexity_before: float
    """On the held-out text, over `held_out_tokens`."""
    perplexity_after: float
    kl_mean: float
    """Of next-token distributions, in nats: how far the version's is from the original's, over positions of the
    held-out text.
    """
    kl_p99: float
    """99 of 100 positions have no more."""
    greedy_agreement: float
    """From 0 to 1: the part of `greedy_tokens` that the version would have chosen as well."""
    greedy_tokens: int
    """Chosen by the original, one after the other, in answer to the held-out questions."""
    probes: tuple[Probe, ...] = ()
    size_before_bytes: int
    """Of the files with the weights."""
    size_after_bytes: int
    load_s_before: float | None = None
    """From the engine's start until it was ready, its code imported; None where no engine was measured."""
    load_s_after: float | None = None
    tokens_per_s_before: float | None = None
    """Answered by an engine that `concurrency` callers keep busy."""
    tokens_per_s_after: float | None = None
    concurrency: int | None = None
    where: str = ""
    """The machine, and the engine's threads."""
    held_out_tokens: int
    held_out_sha256: str
    measured_with: dict[str, str] = {}
    """Versions, data types, and why something was not measured."""

    @property
    def perplexity_increase(self) -> float:
        """The share by which it rose; below 0 when it fell."""
        return round(self.perplexity_after / self.perplexity_before - 1, 9)

    @property
    def probes_lost(self) -> float:
        """The share of all probes' right answers that were lost, net; below 0 when there are more than before."""
        before = sum(probe.before for probe in self.probes)
        return (before - sum(probe.after for probe in self.probes)) / before if before else 0.0

    @property
    def speedup(self) -> float | None:
        """Tokens per second beside the original's; None where they were not measured."""
        if not self.tokens_per_s_before or self.tokens_per_s_after is None:
            return None
        return self.tokens_per_s_after / self.tokens_per_s_before

    @property
    def size_ratio(self) -> float:
        """How much of the original's size is left."""
        return self.size_after_bytes / self.size_before_bytes


class Verdict(BaseModel):
    """What is kept beside the weights, so that a registry that is rebuilt knows it too."""

    model_config = ConfigDict(frozen=True)

    card: QualityCard
    failures: tuple[str, ...] = ()
    """Where it did not pass its gate."""


class Gate(Spec):
    """The most that a version may lose; None for the default of its precision, see `gate_of`."""

    perplexity_increase: Annotated[float, Field(ge=0, le=1000)] | None = None
    """The share by which perplexity may rise: 0.05 is 5 %."""
    kl_mean: Annotated[float, Field(ge=0, le=1000)] | None = None
    """In nats."""
    kl_p99: Annotated[float, Field(ge=0, le=1000)] | None = None
    greedy_agreement: Share | None = None
    """The least."""
    probes_lost: Share | None = None
    """The share of the probes' right answers that may be lost."""


_EIGHT_BITS = Gate(perplexity_increase=0.05, kl_mean=0.05, kl_p99=0.5, greedy_agreement=0.85, probes_lost=0.15)
_FOUR_BITS = Gate(perplexity_increase=0.15, kl_mean=0.15, kl_p99=1.5, greedy_agreement=0.75, probes_lost=0.2)
_DEFAULTS: dict[Precision, Gate] = {
    "BF16": _EIGHT_BITS,
    "W8A8_FP8": _EIGHT_BITS,
    "SmoothQuant-W8A8": _EIGHT_BITS,
    "AWQ-W4A16": _FOUR_BITS,
    "W4A8": _FOUR_BITS,
}


def default_gate(precision: Precision) -> Gate:
    """The bounds that hold for a precision unless others are wished; all are there."""
    return _DEFAULTS[precision]


def gate_of(precision: Precision, wished: Gate | None) -> Gate:
    """The wished bounds, completed with the precision's defaults."""
    named = wished.model_dump(exclude_none=True) if wished else {}
    return default_gate(precision).model_copy(update=named)


def failures(card: QualityCard, gate: Gate) -> tuple[str, ...]:
    """Where the card is beyond the gate, in sentences with both numbers; empty when it has passed.

    A bound that the gate leaves out is not asked for.
    """
    found = []
    if _above(card.perplexity_increase, gate.perplexity_increase):
        risen, allowed = card.perplexity_increase, gate.perplexity_increase
        found.append(
            f"Perplexity on held-out text rose by {_percent(risen)}, from {card.perplexity_before:.2f} to "
            f"{card.perplexity_after:.2f}; allowed: {_percent(allowed)}."
        )
    if _above(card.kl_mean, gate.kl_mean):
        found.append(f"The mean KL of next-token distributions is {card.kl_mean:.3f} nats; allowed: {gate.kl_mean:g}.")
    if _above(card.kl_p99, gate.kl_p99):
        found.append(
            f"The 99th percentile of the KL of next-token distributions is {card.kl_p99:.3f} nats; "
            f"allowed: {gate.kl_p99:g}."
        )
    if gate.greedy_agreement is not None and not card.greedy_agreement >= gate.greedy_agreement:
        found.append(
            f"Greedy answers agree in {_percent(card.greedy_agreement)} of {card.greedy_tokens} tokens; "
            f"wanted: at least {_percent(gate.greedy_agreement)}."
        )
    if _above(card.probes_lost, gate.probes_lost):
        found.append(
            f"The probes lost {_percent(card.probes_lost)} of their right answers ({_told(card)}); "
            f"allowed: {_percent(gate.probes_lost)}."
        )
    return tuple(found)


def _above(value: float, bound: float | None) -> bool:
    return bound is not None and not value <= bound  # what is no number is above every bound


def _percent(share: float | None) -> str:
    return f"{100 * (share or 0):.1f} %"


def _told(card: QualityCard) -> str:
    return ", ".join(f"{probe.name} {probe.after} of {probe.of} after {probe.before}" for probe in card.probes)
