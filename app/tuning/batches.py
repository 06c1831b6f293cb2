"""Which samples an iteration takes, which worker takes which of them, and what goes through the model at once."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Trained = npt.NDArray[np.bool_]


_NO_EPOCH = (1 << 64) - 1
"""Where the seed's permutation that sets samples apart is, far from those of epochs."""


class Samples(Protocol):
    """Tokenized conversations by number, on this machine's disk."""

    @property
    def digest(self) -> str:
        """Equal for equal samples."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> tuple[Ids, Trained]:
        """(token IDs, for each whether the model is to learn to say it), both of one length."""


class Part:
    """Some of the samples, as samples."""

    def __init__(self, samples: Samples, numbers: npt.NDArray[np.int32]) -> None:
        self._samples, self._numbers = samples, numbers

    @property
    def digest(self) -> str:
        """Of all the samples, for which of them these are is the plan's."""
        return self._samples.digest

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> tuple[Ids, Trained]:
        return self._samples[int(self._numbers[number])]


def parted(samples: Samples, validation_rows: int, seed: int) -> tuple[Part, Part]:
    """(those to train on, those for validation): the last ones of a permutation by the seed."""
    numbers = _permutation(len(samples), seed, epoch=_NO_EPOCH)
    first = len(samples) - validation_rows
    return Part(samples, numbers[:first]), Part(samples, numbers[first:])


class Order:
    """The order of `rows` samples over all epochs: each epoch a permutation of its own, by the seed alone.

    Nothing of the past is needed, so an iteration's rows are the same after any crash and with any number of workers.
    """

    def __init__(self, rows: int, rows_per_iteration: int, seed: int) -> None:
        """Raises ValueError without rows."""
        if rows < 1:
            raise ValueError("there is no sample to train on")
        self._rows, self._per_iteration = rows, rows_per_iteration
        # Two, for an iteration may begin in one epoch and end in the next; 40 MB each for ten million rows.
        self._epoch = lru_cache(maxsize=2)(lambda epoch: _permutation(rows, seed, epoch))

    def rows(self, iteration: int) -> list[int]:
        """The numbers of the samples of an iteration, counted from 0."""
        first = iteration * self._per_iteration
        places = (divmod(place, self._rows) for place in range(first, first + self._per_iteration))
        return [int(self._epoch(epoch)[place]) for epoch, place in places]


def _permutation(rows: int, seed: int, epoch: int) -> npt.NDArray[np.int32]:
    key = np.array([seed, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(np.arange(rows, dtype=np.int32))


def dealt(lengths: Sequence[int], workers: int) -> list[list[int]]:
    """Places of `lengths` for each worker, about equally many tokens each: the longest first, to who has least."""
    hands: list[list[int]] = [[] for _ in range(workers)]
    tokens = [0] * workers
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        worker = min(range(workers), key=lambda worker: (tokens[worker], worker))
        hands[worker].append(place)
        tokens[worker] += lengths[place]
    return hands


def packed(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Places of `lengths` in few groups of at most `most_tokens` each: first fit, the longest first.

    A sample that is longer than that is a group alone.
    """
    groups: list[list[int]] = []
    room: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        length = lengths[place]
        found = next((number for number, left in enumerate(room) if left >= length), None)
        if found is None:
            groups.append([place])
            room.append(most_tokens - length)
        else:
            groups[found].append(place)
            room[found] -= length
    return groups
