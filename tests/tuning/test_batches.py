"""Which samples an iteration takes, and how they are shared out."""

import pytest

from app.tuning.batches import Order, dealt, packed, parted
from tests.tuning.tiny_models import RandomSamples


def test_each_epoch_takes_every_sample_once_in_an_order_of_its_own():
    order = Order(10, 4, seed=3)
    places = [row for iteration in range(5) for row in order.rows(iteration)]
    first, second = places[:10], places[10:]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_an_iteration_is_the_same_whoever_asks_and_when():
    later = Order(10, 4, seed=3)
    wanted = [Order(10, 4, seed=3).rows(iteration) for iteration in range(6)]
    assert [later.rows(iteration) for iteration in (5, 0, 3)] == [wanted[5], wanted[0], wanted[3]]
    assert Order(10, 4, seed=4).rows(0) != wanted[0]


def test_fewer_samples_than_an_iteration_takes_are_taken_again():
    assert sorted(Order(3, 8, seed=0).rows(0)[:6]) == [0, 0, 1, 1, 2, 2]


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(ValueError, match="no sample"):
        Order(0, 8, seed=0)


def test_rows_for_validation_are_not_trained_on():
    samples = RandomSamples(20)
    training, validation = parted(samples, 5, seed=1)
    assert (len(training), len(validation)) == (15, 5)
    identities = [id(part[number][0]) for part in (training, validation) for number in range(len(part))]
    assert len(set(identities)) == 20


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_workers_get_each_sample_once_and_about_as_many_tokens(workers: int):
    lengths = [50, 3, 40, 41, 7, 39, 12, 90, 1, 1, 60, 33]
    hands = dealt(lengths, workers)
    assert sorted(place for hand in hands for place in hand) == list(range(len(lengths)))
    tokens = [sum(lengths[place] for place in hand) for hand in hands]
    assert max(tokens) - min(tokens) <= max(lengths)


def test_more_workers_than_samples_leave_some_with_nothing():
    assert dealt([5, 6], 3) == [[1], [0], []]


def test_samples_are_packed_into_few_groups_that_fit():
    lengths = [50, 30, 70, 20, 100, 10, 20]
    groups = packed(lengths, 100)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    assert all(sum(lengths[place] for place in group) <= 100 for group in groups)
    assert len(groups) == 3


def test_a_sample_that_fits_nowhere_is_alone():
    assert packed([5, 200, 5], 100) == [[1], [0, 2]]
    assert packed([5, 5], 0) == [[0], [1]]
