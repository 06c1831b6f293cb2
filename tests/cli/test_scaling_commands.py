"""`modelunit endpoints scaling`, `tiers` and `wake`: why there are so many units, and what else could be."""

import json
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.records import EndpointMinute, ScalingDecision
from app.core.scaling import Rules, Signals, Timers, decide, journal_row
from tests.cli.real_platform import Here
from tests.cli.runner import done, modelunit, told
from tests.control_plane.platforms import until

RULES = Rules(0, 4, 1, concurrency=8.0, tokens_per_unit=None, idle_to_zero_s=60.0)


@pytest.fixture
def demo(here: Here) -> str:
    """An endpoint that may sleep, with two decisions: woken, and put to sleep."""
    done("endpoints", "create", "demo", "--model", "m-1", "--min-units", "0", "--max-units", "4", "--tier", "low")
    endpoint_id: str = told("endpoints", "get", "demo")["id"]
    now_s = time.time()
    woken = Signals(now_s - 100, running=0, queued=1, tokens=0, units=0, target=0)
    idle = Signals(now_s - 10, running=0, queued=0, tokens=0, units=1, target=1, idle_s=60.0)
    for number, (signals, timers) in enumerate(((woken, Timers()), (idle, Timers(now_s - 70)))):
        keep(here, endpoint_id, number, journal_row(signals, RULES, timers, decide(signals, RULES, timers)))
    return endpoint_id


def keep(here: Here, endpoint_id: str, number: int, row: dict[str, Any]) -> None:
    at = datetime.fromtimestamp(row.pop("at_s"), UTC)
    row |= {"id": f"d-{number}", "created_at": at, "endpoint_id": endpoint_id, "revision": "r"}
    here.platform.registry.put(ScalingDecision.model_validate(row))


def keep_minutes(here: Here, endpoint_id: str, *minutes: dict[str, float]) -> None:
    """Those before this one, the last of them a minute ago; an empty one was not heard of."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    for back, figures in enumerate(reversed(minutes), 1):
        at = now - timedelta(minutes=back)
        if figures:
            record = EndpointMinute(id=f"m-{back}", created_at=at, endpoint_id=endpoint_id, figures=figures)
            here.platform.registry.put(record)


def test_decisions_are_listed_and_explained(demo: str) -> None:
    rows = told("endpoints", "scaling", "demo")
    assert [(row["from_units"], row["to_units"], row["rule"]) for row in rows] == [(0, 1, "wake"), (1, 0, "sleep")]
    assert rows[0]["rules"] == asdict(RULES)
    assert [row["rule"] for row in told("endpoints", "scaling", "demo", "--limit", "1")] == ["sleep"]
    assert told("endpoints", "scaling", "demo", "--until", "1h") == []
    table = done("endpoints", "scaling", "demo").splitlines()
    assert table[0].split()[:5] == ["at", "from_units", "to_units", "rule", "bound"]
    explained = done("endpoints", "scaling", "demo", "--explain").splitlines()
    assert "0 -> 1 units: woken by a request" in explained[0]
    assert "1 -> 0 units: put to sleep" in explained[1]
    assert "put to sleep" in told("endpoints", "scaling", "demo", "--explain")[1]["explanation"]


def test_of_a_fixed_number_of_units_nothing_is_decided(here: Here, demo: str) -> None:
    fixed = "a fixed number of units: nothing is decided"
    done("endpoints", "create", "fixed", "--model", "m-1")
    result = modelunit("endpoints", "scaling", "fixed", "--json")
    assert (json.loads(result.stdout), result.stderr.strip()) == ([], fixed)
    done("endpoints", "create", "new", "--model", "m-1", "--max-units", "2")
    for name in ("demo", "new"):
        assert fixed not in modelunit("endpoints", "scaling", name).stderr


def test_the_same_is_decided_again(demo: str) -> None:
    assert done("endpoints", "scaling", "demo", "--replay") == "2 decisions, all the same again\n"
    assert told("endpoints", "scaling", "demo", "--replay") == {"decisions": 2, "equal": True, "different": []}


def test_what_would_be_decided_otherwise_is_said(here: Here, demo: str) -> None:
    signals = Signals(time.time(), running=9, queued=0, tokens=0, units=1, target=1)
    row = journal_row(signals, RULES, Timers(), decide(signals, RULES, Timers()))
    keep(here, demo, 2, row | {"to_units": 3})
    result = modelunit("endpoints", "scaling", "demo", "--replay")
    assert result.exit_code == 1
    assert "then 3 units (up, requests), now 2 units (up, requests)" in result.stdout
    assert result.stdout.endswith("3 decisions, 1 differ\n")
    keep(here, demo, 2, row | {"at_s": time.time(), "rules": {"min_units": 3}})
    assert "no rules or signals" in modelunit("endpoints", "scaling", "demo", "--replay").stdout


def test_what_if_shows_units_and_waiting_by_minute_and_in_sum(here: Here, demo: str) -> None:
    busy = {"requests_2xx": 60.0, "running": 1.0, "units": 1.0, "unit_s": 60.0}
    asleep: dict[str, float] = {}
    keep_minutes(here, demo, busy, *[asleep] * 8, busy, busy)
    as_it_is = told("endpoints", "scaling", "demo", "--what-if")
    assert len(as_it_is["minutes"]) == 11
    assert [minute["units_recorded"] for minute in as_it_is["minutes"]] == [1, *[0] * 8, 1, 1]
    assert {minute["units"] == minute["units_now"] for minute in as_it_is["minutes"]} == {True}
    assert as_it_is["sum"]["unit_h"] == as_it_is["sum"]["now_unit_h"]
    assert as_it_is["sum"]["recorded_unit_h"] == 0.05

    never = told("endpoints", "scaling", "demo", "--what-if", "min=1", "max=2", "tier=high")
    assert {minute["units"] for minute in never["minutes"]} == {1}
    assert never["sum"]["waiting_s"] == 0
    assert never["sum"]["now_waiting_s"] > 0  # for the unit that has to start
    assert never["sum"]["unit_h"] > never["sum"]["now_unit_h"]

    sooner = told("endpoints", "scaling", "demo", "--what-if", "idle=1m", "start=5")
    assert sooner["sum"]["unit_h"] < as_it_is["sum"]["unit_h"]
    assert sooner["sum"]["waiting_s"] != as_it_is["sum"]["waiting_s"]

    table = done("endpoints", "scaling", "demo", "--what-if", "min=1").splitlines()
    assert table[0].split() == [
        "minute", "requests", "load", "units_recorded", "units_now", "waiting_now", "units", "waiting",
    ]  # fmt: skip
    assert len([line for line in table if line.strip().startswith("20")]) == 11
    assert "unit hours" in table[-1]


def test_what_if_without_minutes_says_so(demo: str) -> None:
    result = modelunit("endpoints", "scaling", "demo", "--what-if", "max=2")
    assert result.exit_code == 0
    assert "nothing has been heard" in result.stderr


WRONG = [
    (["--what-if", "--explain"], "do not go together"),
    (["min=1"], "go with --what-if only"),
    (["--what-if", "colour=red"], "is no change"),
    (["--what-if", "min="], "is no change"),
    (["--what-if", "min=one"], "needs a whole number"),
    (["--what-if", "min=-1"], "min_units is -1"),
    (["--what-if", "min=3", "max=2"], "min_units (3) is above max_units (2)"),
    (["--what-if", "tier=highest"], "scale.tier is a string"),
    (["--what-if", "idle=often"], "is no span of time"),
    (["--what-if", "min=1", "idle=60"], "needs min_units 0"),
    (["--what-if", "concurrency=65"], "64 at once"),
]


def test_wrong_usage(demo: str) -> None:
    for arguments, said in WRONG:
        result = modelunit("endpoints", "scaling", "demo", *arguments)
        assert result.exit_code == 2, arguments
        assert said in " ".join(result.stderr.replace("│", " ").split())


def test_tiers(demo: str) -> None:
    found = told("endpoints", "tiers", "demo", "--tps", "1000")
    assert [tier["name"] for tier in found["tiers"]] == ["low", "medium", "high"]
    assert (found["tier"], found["concurrency"]) == ("low", found["tiers"][0]["concurrency"])
    result = modelunit("endpoints", "tiers", "demo")
    lines = result.stdout.splitlines()
    assert lines[1].split()[:3] == ["*", "low", "2"]
    assert "estimate" in lines[1]
    assert "3000 tokens in and 300 out" in result.stderr


def test_wake_waits_until_a_unit_runs(here: Here, demo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [(key, awake)] = here.cluster.applications.items()
    here.cluster.applications[key] = replace(awake, running_units=0, target_units=0)
    here.platform.endpoint_loop.nudge()
    until(lambda: told("endpoints", "get", "demo")["state"] == "sleeping")
    done("endpoints", "wake", "demo", "--no-wait")
    assert [endpoint_id for endpoint_id, _ in here.cluster.woken] == [demo]
    late = modelunit("endpoints", "wake", "demo", "--timeout", "1s")
    assert late.exit_code == 1
    assert "does not serve after 1 s; it goes on waking" in late.stderr

    def wake(endpoint_id: str, revision: str) -> None:
        here.cluster.applications[endpoint_id, revision] = awake

    monkeypatch.setattr(here.cluster, "wake", wake)
    assert told("endpoints", "wake", "demo")["units"]["running"] == 1
    assert "stopped" in done("endpoints", "stop", "demo")
    result = modelunit("endpoints", "wake", "demo")
    assert result.exit_code == 1
    assert "only one that sleeps can be woken" in result.stderr
