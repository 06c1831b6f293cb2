import pytest
from pydantic import ValidationError

from app.core.key_limits import NO_LIMITS, KeyLimits, reckoned_tokens


@pytest.mark.parametrize(
    ("concurrency", "routers", "share"), [(None, 1, None), (4, 1, 4), (4, 2, 2), (5, 2, 2), (1, 2, 1), (2, 3, 1)]
)
def test_routers_share_the_requests_under_way_and_each_has_one(
    concurrency: int | None, routers: int, share: int | None
) -> None:
    assert KeyLimits(concurrency=concurrency).share_under_way(routers) == share


@pytest.mark.parametrize(
    "wrong", [{"concurrency": 0}, {"requests_per_minute": 1.5}, {"tokens_per_minute": "9"}, {"qps": 1}]
)
def test_wrong_limits_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        KeyLimits.model_validate(wrong)


@pytest.mark.parametrize(
    ("body_bytes", "max_tokens", "answers", "tokens"),
    [(400, 100, None, 200), (401, 100, 1, 201), (400, 100, 3, 400), (400, None, None, 356), (0, 1, None, 1)],
)
def test_a_request_is_reckoned_by_its_bytes_and_its_answers_in_full(
    body_bytes: int, max_tokens: int | None, answers: int | None, tokens: int
) -> None:
    assert reckoned_tokens(body_bytes, max_tokens, answers) == tokens


def test_limits_are_told_in_words() -> None:
    assert NO_LIMITS.described() == "no limits"
    limits = KeyLimits(requests_per_minute=60, tokens_per_minute=10_000, concurrency=2)
    assert limits.described() == "60 requests a minute, 10,000 tokens a minute, 2 requests at once"
