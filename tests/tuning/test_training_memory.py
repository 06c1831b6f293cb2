"""How much goes through the model at once, foretold."""

import pytest
from transformers import LlamaConfig

from app.tuning.memory import Room, room

SMALL = LlamaConfig(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, vocab_size=49152)
LARGE = LlamaConfig(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, vocab_size=128256)
GIB = 1 << 30


def test_a_small_model_takes_as_many_tokens_as_are_worth_it():
    assert room(SMALL, 2, 135_000_000, 5_000_000, 4096, 80 * GIB, 16384) == Room(16384, spare_memory=False)


def test_layers_are_computed_again_where_the_longest_sample_would_not_fit_otherwise():
    assert room(LARGE, 2, 8_000_000_000, 40_000_000, 4096, 68 * GIB, 16384).spare_memory is False
    tight = room(LARGE, 2, 8_000_000_000, 40_000_000, 16384, 45 * GIB, 65536)
    assert tight.spare_memory
    assert tight.tokens >= 16384


@pytest.mark.parametrize("free", [0, GIB])
def test_where_nothing_fits_it_is_tried_one_sample_at_a_time(free: int):
    assert room(LARGE, 2, 8_000_000_000, 40_000_000, 4096, free, 16384) == Room(1, spare_memory=True)
