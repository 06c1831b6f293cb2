"""What a model is calibrated with: the shipped texts, a user's conversations, and too few of them."""

from itertools import islice

import pytest

from app.compression.calibration import calibration_samples
from app.compression.shipped import shipped_conversations
from app.tuning.data.conversations import Turn, checked_text
from app.tuning.data.problems import DataProblems
from app.tuning.data.tokenizer import load_tokenizer
from tests.weights.sound_folders import write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return load_tokenizer(folder)


def test_the_shipped_texts_are_the_same_each_time_and_of_many_kinds():
    first, second = (list(islice(shipped_conversations(), 400)) for _ in range(2))
    assert first == second
    texts = [turn.content for conversation in first for turn in conversation]
    assert all(checked_text(text, "content") for text in texts)
    everything = "\n".join(texts)
    for mark in ("suspension bridge", "绿茶", "Windmühle", "rosiers", "rebaño", "провода", "忘れ物", "빵집", "الماء"):
        assert mark in everything
    for mark in ("def merge", "pthread_mutex_lock", "SELECT c.id", "impl Iterator", "set -euo pipefail"):
        assert mark in everything
    assert max(map(len, texts)) > 3000  # some are long
    assert {len(conversation) for conversation in first} == {2, 4}


def test_samples_are_full_and_go_on_where_the_last_one_ended(tokenizer):
    samples = calibration_samples(shipped_conversations(), tokenizer, 30, 2000)
    assert {len(sample) for sample in samples} == {2000}
    assert len(samples) == 30
    text = tokenizer.decode([token for sample in samples for token in sample])
    assert text.startswith("<s>user: ")
    assert "</s><s>assistant: " in text


def test_no_more_is_read_than_is_needed(tokenizer):
    def endless():
        for number in range(1000):
            assert number < 20
            yield (Turn("user", "What is it?"), Turn("assistant", "It is a long answer. " * 5))

    assert len(calibration_samples(endless(), tokenizer, 3, 200)) == 3


def test_too_few_conversations_give_fewer_samples_and_none_is_an_error(tokenizer):
    few = [(Turn("user", "Why?"), Turn("assistant", "Because."))] * 10
    assert 0 < len(calibration_samples(few, tokenizer, 100, 64)) < 10
    with pytest.raises(DataProblems, match="one sample takes 4096"):
        calibration_samples(few, tokenizer, 1, 4096)
