from collections.abc import Callable
from queue import SimpleQueue

import pytest

from app.control_plane.loop import Loop
from app.core.errors import Superseded
from tests.control_plane.platforms import WAIT_S, until

HOUR_S = 3600.0


@pytest.fixture
def steps() -> SimpleQueue[str]:
    return SimpleQueue()


def script(steps: SimpleQueue[str], *turns: bool | Exception) -> Callable[[], bool]:
    """A step that does these one after the other, and nothing from then on."""
    left = list(turns)

    def step() -> bool:
        steps.put("step")
        turn = left.pop(0) if left else True
        if isinstance(turn, Exception):
            raise turn
        return turn

    return step


def test_a_step_that_fails_is_followed_by_another(steps: SimpleQueue[str]) -> None:
    loop = Loop("test", HOUR_S, 0.0)
    loop.start(script(steps, RuntimeError("once"), False))
    for _ in range(3):
        steps.get(timeout=WAIT_S)
    assert loop.alive
    loop.nudge()
    steps.get(timeout=WAIT_S)
    loop.stop()
    assert not loop.alive


def test_a_loop_ends_for_good_where_another_has_taken_over(steps: SimpleQueue[str]) -> None:
    loop = Loop("test", 0.0, 0.0)
    loop.start(script(steps, True, Superseded("Another control plane has taken over.")))
    until(lambda: not loop.alive)
    assert steps.qsize() == 2
    loop.nudge()
    loop.stop()
    assert steps.qsize() == 2
