"""Waiting has an end, but not at the first bad news."""

from typing import Any

import pytest

from app.core.patience import FAILED_FOR_S, OUTAGE_S, Outcome, Silence


def record(state: str, observed: int = 1) -> dict[str, Any]:
    return {"state": state, "generation": 1, "observed_generation": observed}


def test_a_silence_begins_with_the_first_question_without_an_answer() -> None:
    silence = Silence()
    assert not silence.too_long(0, answered=True)
    assert not silence.too_long(2 * OUTAGE_S, answered=False)  # the question itself may have taken long
    assert not silence.too_long(3 * OUTAGE_S, answered=False)
    assert silence.too_long(3 * OUTAGE_S + 1, answered=False)


def test_an_answer_ends_a_silence() -> None:
    silence = Silence()
    assert not silence.too_long(0, answered=False)
    assert not silence.too_long(OUTAGE_S, answered=True)
    assert not silence.too_long(OUTAGE_S + 1, answered=False)
    assert not silence.too_long(2 * OUTAGE_S + 1, answered=False)


@pytest.mark.parametrize("state", ["healthy", "sleeping", "scaling", "waking"])
def test_it_serves_once_the_newest_wish_is_carried_out(state: str) -> None:
    assert Outcome().serves(record(state, observed=0), 0) is None
    assert Outcome().serves(record(state), 0) is True


@pytest.mark.parametrize("state", ["abnormal", "alarm", "stopped", "deleting"])
def test_bad_news_must_last(state: str) -> None:
    outcome = Outcome()
    assert outcome.serves(record(state), 0) is None
    assert outcome.serves(record("scheduling"), FAILED_FOR_S) is None
    assert outcome.serves(record(state), FAILED_FOR_S) is None
    assert outcome.serves(record(state), 2 * FAILED_FOR_S) is False


@pytest.mark.parametrize("state", ["scheduling", "upgrading"])
def test_what_is_under_way_stays_open(state: str) -> None:
    outcome = Outcome()
    assert {outcome.serves(record(state), now) for now in range(1000)} == {None}
