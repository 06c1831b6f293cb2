"""What training tells after each iteration: the line of the log, the curves, the time that is left."""

from collections.abc import Sequence
from datetime import timedelta

from pydantic import BaseModel, ConfigDict


class Report(BaseModel):
    """One iteration. The loss is the mean over all trained tokens of its rows, whatever workers took them."""

    model_config = ConfigDict(frozen=True)

    iteration: int
    """From 1: how many are done."""
    iterations: int
    loss: float
    learning_rate: float
    gradient_norm: float
    elapsed_s: float
    tokens: int
    """Real ones, no padding."""
    trained_tokens: int
    rows: int
    cards: int
    at_s: float
    """Unix time of its end."""
    validation_loss: float | None = None

    @property
    def tokens_per_s_per_card(self) -> float:
        return self.tokens / self.elapsed_s / self.cards

    def line(self, remaining_s: float) -> str:
        """For the log. `global batch size` x `SEQ_LEN` is the number of tokens (S3, section 6.4)."""
        told = {
            "lm loss": f"{self.loss:.6E}",
            "learning rate": f"{self.learning_rate:.6E}",
            "grad norm": f"{self.gradient_norm:.3f}",
            "global batch size": str(self.rows),
            "SEQ_LEN": f"{self.tokens / self.rows:.2f}",
            "elapsed time per iteration (ms)": f"{self.elapsed_s * 1000:.1f}",
            "tokens per second per card": f"{self.tokens_per_s_per_card:.1f}",
        }
        if self.validation_loss is not None:
            told["validation loss"] = f"{self.validation_loss:.6E}"
        told["remaining"] = str(timedelta(seconds=round(remaining_s)))
        values = " | ".join(f"{name}: {value}" for name, value in told.items())
        return f"iteration {self.iteration}/{self.iterations} | {values} |"


RECENT = 50
"""Iterations that the remaining time is foretold by."""


def remaining_s(reports: Sequence[Report]) -> float:
    """How long the rest takes if it goes on as lately; 0 for no report."""
    if not reports:
        return 0.0
    recent = reports[-RECENT:]
    last = recent[-1]
    return (last.iterations - last.iteration) * sum(report.elapsed_s for report in recent) / len(recent)
