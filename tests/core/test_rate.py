import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.rate import Rate, TokenBucket

PAUSES = st.floats(0, 90)
COSTS = st.floats(0.5, 5000)
LIMITS = st.floats(0.1, 100_000)
UNHURRIED = settings(deadline=None)


def goes(bucket: TokenBucket, rate: Rate, now: float, cost: float = 1) -> bool:
    bucket.follow(rate, now)
    if bucket.wait_s(cost):
        return False
    bucket.take(cost)
    return True


def taken(bucket: TokenBucket, per_s: float, moments: list[float]) -> int:
    return sum(goes(bucket, Rate.a_second(per_s, 1), moment) for moment in moments)


@pytest.mark.parametrize(("per_s", "burst"), [(5, 5), (1, 1), (0.25, 1), (2.5, 2)])
def test_after_a_pause_one_seconds_worth_goes_at_once_and_at_least_one(per_s: float, burst: int) -> None:
    bucket = TokenBucket(Rate.a_second(per_s, 1), 0)
    assert taken(bucket, per_s, [0] * 10) == burst
    assert taken(bucket, per_s, [1000] * 10) == burst  # a longer pause saves up no more


@pytest.mark.parametrize(
    ("limit", "routers", "at_once"), [(3, 1, 3), (3, 2, 1.5), (1, 2, 1), (60, 1, 50), (60, 2, 25), (6000, 1, 100)]
)
def test_of_a_minute_a_seconds_worth_goes_at_once_or_a_small_limit_whole(
    limit: float, routers: int, at_once: float
) -> None:
    rate = Rate.a_minute(limit, 50, routers)
    assert rate == Rate(pytest.approx(limit / 60 / routers), at_once)


@UNHURRIED
@given(LIMITS, st.integers(1, 8), st.booleans(), st.lists(st.tuples(PAUSES, COSTS), min_size=1, max_size=50))
def test_never_more_goes_than_the_rate_and_one_burst_and_the_last(
    limit: float, routers: int, by_minute: bool, arrivals: list[tuple[float, float]]
) -> None:
    rate = Rate.a_minute(limit, 50, routers) if by_minute else Rate.a_second(limit, routers)
    bucket, now, gone, last = TokenBucket(rate, 0), 0.0, 0.0, 0.0
    for pause_s, cost in arrivals:
        now += pause_s
        if goes(bucket, rate, now, cost):
            gone += cost
            last = max(last, cost - rate.burst)
        assert gone <= (rate.burst + now * rate.per_s + max(0.0, last)) * (1 + 1e-6)
        assert bucket.level <= rate.burst


@UNHURRIED
@given(LIMITS, st.floats(0, 1e6), st.lists(COSTS, min_size=1, max_size=20))
def test_who_waits_as_long_as_told_is_let_in(limit: float, now: float, costs: list[float]) -> None:
    rate = Rate.a_minute(limit, 50, 1)
    bucket = TokenBucket(rate, now)
    for cost in costs:
        bucket.follow(rate, now)
        now += bucket.wait_s(cost)
        assert goes(bucket, rate, now, cost)


@UNHURRIED
@given(LIMITS, st.lists(st.tuples(PAUSES, COSTS, COSTS), max_size=50))
def test_what_is_given_back_in_full_was_never_taken_and_more_than_full_is_nobodys(
    limit: float, requests: list[tuple[float, float, float]]
) -> None:
    rate = Rate.a_minute(limit, 50, 1)
    bucket, now, counted = TokenBucket(rate, 0), 0.0, 0.0
    for pause_s, reckoned, truth in requests:
        now += pause_s
        if goes(bucket, rate, now, reckoned):
            bucket.give_back(reckoned - truth)
            counted += truth
        assert bucket.level <= rate.burst
        assert counted <= (rate.burst + now * rate.per_s + max(0.0, -bucket.level)) * (1 + 1e-6)
    bucket.follow(rate, now + 1e9)
    before = bucket.level
    bucket.take(before)
    bucket.give_back(before)
    assert bucket.level == pytest.approx(before)


@pytest.mark.parametrize("per_s", [0.1, 0.3, 1, 3, 7])
def test_nobody_is_let_in_before_the_time_that_was_told(per_s: float) -> None:
    bucket, rate, now = TokenBucket(Rate.a_second(per_s, 1), 0), Rate.a_second(per_s, 1), 0.0
    while goes(bucket, rate, now):
        pass
    for _ in range(100):
        wait_s = bucket.wait_s()
        assert not goes(bucket, rate, now + wait_s * 0.99)
        now += wait_s
        assert goes(bucket, rate, now)
        assert bucket.wait_s() == pytest.approx(1 / per_s)


def test_more_than_fits_goes_when_it_is_full_and_is_made_up_for() -> None:
    rate = Rate(10, 100)
    bucket = TokenBucket(rate, 0)
    assert goes(bucket, rate, 0, 300)
    assert (bucket.wait_s(1), bucket.wait_s(300)) == (pytest.approx(20.1), pytest.approx(30))
    assert bucket.full_in_s == pytest.approx(30)
    bucket.give_back(290)
    assert bucket.wait_s(90) == 0


def test_a_rate_that_falls_takes_what_was_saved_and_one_that_rises_gives_nothing_at_once() -> None:
    bucket = TokenBucket(Rate.a_second(10, 1), 0)
    assert taken(bucket, 2, [0] * 10) == 2
    assert taken(bucket, 10, [0] * 10) == 0
    assert taken(bucket, 10, [0.5] * 10) == 5


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket, rate = TokenBucket(Rate.a_second(1, 1), 100), Rate.a_second(1, 1)
    assert [goes(bucket, rate, at) for at in (100, 50, 100.5, 101)] == [True, False, False, True]
