"""`modelunit usage`: a table with all together in its last line."""

from datetime import UTC, datetime

import pytest

from app.core.records import DEFAULT_WORKSPACE, UsageHour
from tests.cli.real_platform import Here
from tests.cli.runner import done, modelunit, told

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


@pytest.fixture
def demo(here: Here) -> str:
    """An endpoint that has been called with two keys."""
    endpoint_id: str = told("endpoints", "create", "demo", "--model", "m-1")["id"]
    for key in ("key-1", "key-2"):
        here.platform.registry.put(
            UsageHour(
                id=key, created_at=NOW, day=f"{NOW:%Y-%m-%d}", workspace=DEFAULT_WORKSPACE, endpoint_id=endpoint_id,
                endpoint_name="demo", key_id=key, requests=2, prompt_tokens=10, cached_tokens=4, completion_tokens=5,
            )
        )  # fmt: skip
    return endpoint_id


def test_the_table_ends_on_all_together(demo: str) -> None:
    names, row, all_ = (line.split() for line in done("usage").splitlines())
    assert names[:3] == ["endpoint", "endpoint_name", "requests"]
    assert row == [demo, "demo", "4", "0", "20", "8", "10", "30"]
    assert all_ == ["all", "-", "4", "0", "20", "8", "10", "30"]


def test_it_is_added_up_as_asked(demo: str) -> None:
    found = told("usage", "--by", "key", "--by", "hour", "--endpoint", "demo", "--since", "1h")
    assert [(row["hour"], row["key"]) for row in found["data"]] == [
        (f"{NOW:%Y-%m-%dT%H:%M:%SZ}", "key-1"), (f"{NOW:%Y-%m-%dT%H:%M:%SZ}", "key-2"),
    ]  # fmt: skip
    assert told("usage", "--key", "key-2")["totals"]["requests"] == 2
    assert told("usage", "--until", "3h") == {"data": [], "totals": dict.fromkeys(found["totals"], 0)}


def test_wrong_usage_is_2(demo: str) -> None:
    assert modelunit("usage", "--by", "model").exit_code == 2
    assert modelunit("usage", "--since", "yesterday").exit_code == 2
