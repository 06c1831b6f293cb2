"""Samples in files that are mapped into memory: any of ten million is at hand, and none of them takes memory."""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from app.tuning.data.conversations import Conversation
from app.tuning.data.problems import ProblemList, Wrong
from app.tuning.data.samples import samples_of
from app.tuning.data.tokenizer import Tokenizer

_TOKENS, _ENDS, _SUMMARY = "tokens.bin", "ends.bin", "samples.json"


class SampleSummary(BaseModel):
    """What is told of all samples; written last."""

    model_config = ConfigDict(frozen=True)

    samples: int
    tokens: int
    trained_tokens: int
    longest: int
    """Tokens of the longest sample before it was cut."""
    cut: int
    """Samples that were longer than `max_length`."""
    cut_tokens: int
    dropped: int
    """Samples with nothing left to learn, which are not kept."""
    max_length: int
    digest: str
    """sha256 of both files: equal for the same samples in the same order."""


class SampleFile:
    """The samples of a folder, by number. Any number of processes may read it; pickled, it is the folder's name."""

    def __init__(self, folder: Path):
        """Raises ValueError when the folder holds no complete samples."""
        self._folder = folder
        try:
            self.summary = SampleSummary.model_validate_json((folder / _SUMMARY).read_bytes())
            self._tokens = np.memmap(folder / _TOKENS, np.int32, "r")
            self._ends = np.memmap(folder / _ENDS, np.int64, "r")
        except (OSError, ValidationError) as error:
            raise ValueError("the folder holds no complete samples; write them again") from error
        if (len(self._ends), len(self._tokens)) != (self.summary.samples, self.summary.tokens):
            raise ValueError("the files of the samples are cut short; write them again")

    def __reduce__(self) -> tuple[type["SampleFile"], tuple[Path]]:
        return SampleFile, (self._folder,)

    @property
    def digest(self) -> str:
        return self.summary.digest

    def __len__(self) -> int:
        return self.summary.samples

    def length(self, index: int) -> int:
        """Tokens of a sample, without reading it. Raises IndexError."""
        start, end = self._bounds(index)
        return end - start

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(Tokens int32, whether each is learnt bool), both [length]. Raises IndexError."""
        start, end = self._bounds(index)
        tokens = np.asarray(self._tokens[start:end])
        trained = tokens >= 0
        return np.where(trained, tokens, ~tokens), trained

    def _bounds(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return (int(self._ends[index - 1]) if index else 0), int(self._ends[index])


def write_samples(
    conversations: Iterable[Conversation], tokenizer: Tokenizer, max_length: int, folder: Path
) -> SampleFile:
    """The useful samples of all conversations, in order, as `folder`, which appears when it is complete.

    Tokens are int32; the complement of one (~) says that it is not learnt. Raises FileExistsError, TokenizerUnusable,
    and DataProblems, also when no sample is useful.
    """
    if folder.exists():
        raise FileExistsError(f"{folder.name} is there already")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write(conversations, tokenizer, max_length, partial)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return SampleFile(folder)


def _write(conversations: Iterable[Conversation], tokenizer: Tokenizer, max_length: int, folder: Path) -> None:
    samples = tokens = trained_tokens = longest = cut = cut_tokens = dropped = 0
    digest = hashlib.sha256()
    with (folder / _TOKENS).open("wb") as tokens_file, (folder / _ENDS).open("w+b") as ends_file:
        for sample in samples_of(conversations, tokenizer, max_length):
            longest = max(longest, sample.length)
            cut += sample.length > max_length
            cut_tokens += max(0, sample.length - max_length)
            if not sample.useful:
                dropped += 1
                continue
            ids, trained = np.array(sample.input_ids, np.int32), np.array(sample.trained, bool)
            content = np.where(trained, ids, ~ids).tobytes()
            digest.update(content)
            tokens_file.write(content)
            samples += 1
            tokens += len(ids)
            trained_tokens += int(trained.sum())
            ends_file.write(np.int64(tokens).tobytes())
        ends_file.seek(0)
        while part := ends_file.read(1 << 20):
            digest.update(part)
    if not samples:
        cause = f"no conversation has an answer of the assistant within the first {max_length} tokens"
        raise ProblemList().stop(0, Wrong("", cause, "raise max_length"))
    summary = SampleSummary(
        samples=samples, tokens=tokens, trained_tokens=trained_tokens, longest=longest, cut=cut,
        cut_tokens=cut_tokens, dropped=dropped, max_length=max_length, digest=digest.hexdigest(),
    )  # fmt: skip
    (folder / _SUMMARY).write_text(summary.model_dump_json())
