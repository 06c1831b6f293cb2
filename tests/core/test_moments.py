from datetime import UTC, datetime, timedelta

import pytest
from pydantic import TypeAdapter, ValidationError

from app.core.errors import InvalidField
from app.core.moments import UtcMoment, require_ahead

MOMENT = TypeAdapter(UtcMoment)
HALF_PAST_NINE = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "written", ["2026-01-31T09:30:00Z", "2026-01-31T09:30:00+00:00", "2026-01-31T17:30:00+08:00", HALF_PAST_NINE]
)
def test_a_moment_with_a_zone_becomes_utc(written: object) -> None:
    moment = MOMENT.validate_python(written, strict=True)
    assert moment == HALF_PAST_NINE
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    "written",
    [
        "2026-01-31T09:30:00",  # whose half past nine?
        "2026-01-31",
        "tomorrow",
        "",
        1769851800,
        True,
        None,
        [],
        "0001-01-01T00:00:00+14:00",  # before the first year
        "9999-12-31T23:59:59-14:00",
        "2026-13-01T00:00:00Z",
    ],
)
def test_anything_else_is_refused_with_an_example(written: object) -> None:
    with pytest.raises(ValidationError, match="2026-01-31T09:30:00Z"):
        MOMENT.validate_python(written)


def test_an_end_must_lie_ahead() -> None:
    require_ahead(None, HALF_PAST_NINE)
    require_ahead(HALF_PAST_NINE + timedelta(microseconds=1), HALF_PAST_NINE)
    with pytest.raises(InvalidField, match="has passed") as caught:
        require_ahead(HALF_PAST_NINE, HALF_PAST_NINE)
    assert caught.value.param == "expires_at"
