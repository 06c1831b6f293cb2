import pytest

from app.core.rate import TokenBucket


def taken(bucket: TokenBucket, rate: float, moments: list[float]) -> int:
    return sum(bucket.take(rate, moment) == 0 for moment in moments)


@pytest.mark.parametrize(("rate", "burst"), [(5, 5), (1, 1), (0.25, 1), (2.5, 2)])
def test_after_a_pause_one_seconds_worth_goes_at_once_and_at_least_one(rate: float, burst: int) -> None:
    bucket = TokenBucket(rate, 0)
    assert taken(bucket, rate, [0] * 10) == burst
    assert taken(bucket, rate, [1000] * 10) == burst  # a longer pause saves up no more


@pytest.mark.parametrize("rate", [0.3, 1, 7, 250])
def test_over_time_just_the_rate_goes_through(rate: float) -> None:
    bucket = TokenBucket(rate, 0)
    moments = [number / (17 * rate) for number in range(round(100 * 17 * rate))]  # for 100 s, far more than go through
    assert rate * 100 * 0.9 <= taken(bucket, rate, moments) <= rate * 100 + max(1, rate)


@pytest.mark.parametrize("rate", [0.1, 0.3, 1, 3, 7])
def test_who_waits_as_long_as_told_is_let_in_and_not_before(rate: float) -> None:
    bucket = TokenBucket(rate, 0)
    now = 0.0
    while not (wait_s := bucket.take(rate, now)):
        pass
    for _ in range(100):
        assert bucket.take(rate, now + wait_s * 0.99) > 0
        now += wait_s
        assert bucket.take(rate, now) == 0
        wait_s = bucket.take(rate, now)
        assert wait_s == pytest.approx(1 / rate)


def test_a_rate_that_falls_takes_what_was_saved_and_one_that_rises_gives_nothing_at_once() -> None:
    bucket = TokenBucket(10, 0)
    assert taken(bucket, 2, [0] * 10) == 2
    assert taken(bucket, 10, [0] * 10) == 0
    assert taken(bucket, 10, [0.5] * 10) == 5


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(1, 100)
    assert bucket.take(1, 100) == 0
    assert bucket.take(1, 50) > 0
    assert bucket.take(1, 100.5) > 0
    assert bucket.take(1, 101) == 0
