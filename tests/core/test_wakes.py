"""What callers may wish for, and how long a start will still take."""

import pytest

from app.core.errors import InvalidField
from app.core.wakes import (
    DEFAULT_WISH,
    STAGES,
    WakeEstimate,
    WakeWish,
    come_back_after_s,
    heartbeat,
    stage_of,
    typical,
    wish_of,
)
from app.unit.phases import STARTING_ENGINE, weights_phase
from app.unit.weight_cache_progress import Progress

ESTIMATE = WakeEstimate(phases={"place": 2, "fetch": 10, "load": 5, "warm": 0, "ready": 1})


@pytest.mark.parametrize(
    ("mode", "timeout", "wish"),
    [
        (None, None, DEFAULT_WISH),
        ("wait", None, WakeWish(waits=True, timeout_s=600)),
        ("fail", None, WakeWish(waits=False, timeout_s=600)),
        (None, "1", WakeWish(timeout_s=1)),
        ("wait", "3600", WakeWish(timeout_s=3600)),
    ],
)
def test_what_callers_may_wish_for(mode: str | None, timeout: str | None, wish: WakeWish) -> None:
    assert wish_of(mode, timeout) == wish


@pytest.mark.parametrize("mode", ["", "Fail", "no", "wait, fail"])
def test_nothing_but_wait_and_fail(mode: str) -> None:
    with pytest.raises(InvalidField) as refused:
        wish_of(mode, None)
    assert refused.value.param == "x-modelunit-wake"


@pytest.mark.parametrize("timeout", ["", "0", "3601", "-1", "1.5", "1e3", "ten", " 5", "٥", "00000001"])
def test_nothing_but_whole_seconds_up_to_an_hour(timeout: str) -> None:
    with pytest.raises(InvalidField) as refused:
        wish_of(None, timeout)
    assert refused.value.param == "x-modelunit-wake-timeout-s"


def test_units_speak_of_stages() -> None:
    fetching = Progress(done_bytes=1, total_bytes=1 << 30, fetching=True)
    said = ["", weights_phase(fetching), weights_phase(None), STARTING_ENGINE, "warming up", "ready"]
    assert [stage_of(phase) for phase in said] == ["place", "fetch", "fetch", "load", "warm", "ready"]
    assert stage_of("waiting for 2 x H100, 1 free") == stage_of("whatever comes next") == "place"


@pytest.mark.parametrize(
    ("phase", "in_stage_s", "left_s"),
    [
        ("", 0, 18),
        ("", 1.5, 16.5),
        ("", 60, 16),  # what is late makes the rest no shorter
        ("checking weights", 4, 12),
        ("starting the engine", 0, 6),
        ("ready", 5, 0),
        ("waiting for 1 CPU, 0 free", 5, None),
    ],
)
def test_what_is_left(phase: str, in_stage_s: float, left_s: float | None) -> None:
    assert ESTIMATE.left_s(phase, in_stage_s) == left_s


def test_the_usual_start_is_the_median_of_each_stage() -> None:
    starts = [{"place": place, "load": 4.0} for place in (1.0, 1.21, 50.0)]
    assert typical(starts) == WakeEstimate(  # type: ignore[arg-type]
        phases={"place": 1.2, "fetch": 0, "load": 4, "warm": 0, "ready": 0}
    )
    assert typical([]) is None
    assert set(STAGES) == set(ESTIMATE.phases)


def test_when_to_come_back() -> None:
    assert [come_back_after_s(left_s) for left_s in (None, 0, 0.2, 3.1, 12)] == [30, 1, 1, 4, 12]


@pytest.mark.parametrize(
    ("phase", "left_s", "comment"),
    [
        ("starting the engine", 3.2, b": waking, starting the engine, about 4 s left\n\n"),
        ("starting the engine", 0, b": waking, starting the engine, about 1 s left\n\n"),
        ("waiting for 2 x H100", None, b": waking, waiting for 2 x H100\n\n"),
        ("", None, b": waking, finding a place for a unit\n\n"),
        ("a\n\ndata: {}\r\n", None, b": waking, a data: {}\n\n"),
    ],
)
def test_a_heartbeat_is_one_comment_whatever_is_said(phase: str, left_s: float | None, comment: bytes) -> None:
    assert heartbeat(phase, left_s) == comment
