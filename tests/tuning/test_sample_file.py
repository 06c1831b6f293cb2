"""Samples in files: written once, at hand by number, the same for the same data."""

import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.tuning.data.conversations import Conversation, Turn
from app.tuning.data.problems import DataProblems
from app.tuning.data.sample_file import SampleFile, write_samples
from app.tuning.data.samples import samples_of
from tests.tuning import templates

MIB = 1 << 20


def conversations(count: int) -> Iterator[Conversation]:
    for number in range(count):
        yield Turn("user", f"What is {number}?"), Turn("assistant", f"A number. {'It is long. ' * (number % 5)}")


def test_samples_come_back_by_number(tmp_path: Path):
    tokenizer = templates.tokenizer(templates.CHATML)
    written = write_samples(conversations(100), tokenizer, 512, tmp_path / "samples")
    expected = list(samples_of(conversations(100), tokenizer, 512))
    assert len(written) == 100
    for number in (99, 0, 50):
        ids, trained = written[number]
        assert (ids.dtype, trained.dtype) == (np.int32, np.bool_)
        assert (ids.tolist(), trained.tolist()) == (expected[number].input_ids, expected[number].trained)
        assert written.length(number) == len(ids)
    assert pickle.loads(pickle.dumps(written))[7][0].tolist() == expected[7].input_ids
    with pytest.raises(IndexError):
        written[100]
    with pytest.raises(IndexError):
        written[-1]


def test_what_was_cut_and_dropped_is_told(tmp_path: Path):
    tokenizer = templates.tokenizer(templates.CHATML)
    long_question = (Turn("user", "?" * 200), Turn("assistant", "yes"))
    long_answer = (Turn("user", "?"), Turn("assistant", "y" * 200))
    fits = (Turn("user", "?"), Turn("assistant", "y"))
    lengths = [sample.length for sample in samples_of([long_question, long_answer, fits], tokenizer)]
    told = write_samples([long_question, long_answer, fits], tokenizer, 100, tmp_path / "samples").summary
    assert (told.samples, told.cut, told.dropped, told.longest) == (2, 2, 1, max(lengths))
    assert told.cut_tokens == lengths[0] + lengths[1] - 200
    assert told.tokens == 100 + lengths[2]


def test_the_digest_says_whether_samples_are_the_same(tmp_path: Path):
    tokenizer = templates.tokenizer(templates.CHATML)
    digests = [
        write_samples(conversations(count), tokenizer, length, tmp_path / name).digest
        for name, count, length in (("a", 50, 512), ("b", 50, 512), ("c", 51, 512), ("d", 50, 60))
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_samples_with_the_date_of_the_day_are_the_same_on_every_day(tmp_path: Path):
    tokenizer = templates.tokenizer(templates.LLAMA_3, "<|eot_id|>")
    (sample,) = samples_of(conversations(1), tokenizer)
    assert "Today Date: 26 Jul 2024" in tokenizer.decode(sample.input_ids)


def test_a_folder_appears_when_it_is_complete(tmp_path: Path):
    def failing() -> Iterator[Conversation]:
        yield from conversations(600)
        raise OSError("lost")

    tokenizer = templates.tokenizer(templates.CHATML)
    with pytest.raises(OSError, match="lost"):
        write_samples(failing(), tokenizer, 512, tmp_path / "samples")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".samples.partial").mkdir()  # of a process that was killed
    assert len(write_samples(conversations(3), tokenizer, 512, tmp_path / "samples")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["samples"]
    with pytest.raises(FileExistsError):
        write_samples(conversations(3), tokenizer, 512, tmp_path / "samples")


def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no complete samples"):
        SampleFile(tmp_path)
    write_samples(conversations(3), templates.tokenizer(templates.CHATML), 512, tmp_path / "samples")
    tokens = tmp_path / "samples" / "tokens.bin"
    tokens.write_bytes(tokens.read_bytes()[:-4])
    with pytest.raises(ValueError, match="cut short"):
        SampleFile(tmp_path / "samples")


def test_no_samples_at_all_is_a_problem_of_the_data(tmp_path: Path):
    with pytest.raises(DataProblems, match="within the first 5 tokens; raise max_length"):
        write_samples(conversations(3), templates.tokenizer(templates.CHATML), 5, tmp_path / "samples")


def test_memory_does_not_grow_with_the_samples(tmp_path: Path):
    tokenizer = templates.tokenizer(templates.CHATML)
    peaks = []
    for count in (600, 3000):
        tracemalloc.start()
        file = write_samples(conversations(count), tokenizer, 512, tmp_path / str(count))
        assert sum(len(file[number][0]) for number in range(count)) == file.summary.tokens
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert file.summary.tokens * 16 > 3 * MIB  # what lists of these would take
    assert peaks[1] - peaks[0] < MIB
