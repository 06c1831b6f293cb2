import pytest

from app.core.rate_headers import Standing, rate_headers, span


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0s"), (-1e-12, "0s"), (0.0001, "1ms"), (0.12, "120ms"), (0.9999, "1s"), (1, "1s"), (1.2, "2s"),
        (59.5, "1m0s"), (360, "6m0s"), (3605, "1h0m5s"), (86_400, "24h0m0s"),
    ],
)  # fmt: skip
def test_spans_are_written_as_openai_writes_them(seconds: float, told: str) -> None:
    assert span(seconds) == told


def test_without_limits_nothing_is_told() -> None:
    assert rate_headers([]) == []


def test_each_kind_tells_of_the_limit_that_leaves_least() -> None:
    standings = [
        Standing("requests", 150, 2.5, 1),
        Standing("requests", 60, 50, 0),
        Standing("tokens", 10_000, -300, 1.8),
    ]
    assert dict(rate_headers(standings)) == {
        "x-ratelimit-limit-requests": "150",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "10000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "2s",
    }


def test_of_two_that_leave_the_same_the_smaller_limit_is_told() -> None:
    told = dict(rate_headers([Standing("requests", 600, 3, 0), Standing("requests", 60, 3, 2)]))
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-reset-requests"]) == ("60", "2s")


@pytest.mark.parametrize(
    ("limit", "remaining", "told"), [(1, 2, ("1", "1")), (0.3, 1, ("1", "1")), (3, 2.9999999, ("3", "3"))]
)
def test_no_more_remains_than_the_limit_and_it_is_a_whole_number(
    limit: float, remaining: float, told: tuple[str, str]
) -> None:
    headers = dict(rate_headers([Standing("requests", limit, remaining, 0)]))
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == told
