"""What a training has gone through: a bounded list of points, thinned out evenly as it grows."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

MOST_POINTS = 2000


class Point(BaseModel):
    """One iteration."""

    model_config = ConfigDict(frozen=True)

    iteration: int
    loss: float | None
    """None where it was no number."""
    learning_rate: float
    tokens_per_s: float | None = None
    validation_loss: float | None = None


class Curve(BaseModel):
    """Points by iteration. Once there are too many, only every second, fourth ... iteration is kept.

    Points with a validation loss are rare, and all stay as long as they are not too many by themselves.
    """

    points: tuple[Point, ...] = ()
    every: int = 1

    def add(self, point: Point) -> "Curve":
        """With one more point behind the others."""
        if point.iteration % self.every and point.validation_loss is None:
            return self
        points, every = (*self.points, point), self.every
        while len(points) > MOST_POINTS:
            every *= 2
            points = _thinned(points, every)
        return Curve(points=points, every=every)

    def until(self, iteration: int) -> "Curve":
        """Without what came after an iteration: it is done again."""
        return self.model_copy(update={"points": tuple(p for p in self.points if p.iteration <= iteration)})


def _thinned(points: Iterable[Point], every: int) -> tuple[Point, ...]:
    kept = tuple(p for p in points if p.iteration % every == 0 or p.validation_loss is not None)
    return kept if len(kept) <= MOST_POINTS else tuple(p for p in kept if p.iteration % every == 0)
