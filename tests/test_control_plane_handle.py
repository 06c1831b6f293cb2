"""Calls of the control plane: who says what, and that nobody waits for ever."""

import asyncio
from types import SimpleNamespace

import pytest

from app.control_plane_handle import call
from app.router.control_plane import ControlPlaneForRouter
from app.unit import control_plane as unit_control_plane
from app.unit.control_plane import ControlPlaneForUnit, Unit, this_unit
from tests.control_plane_calls import PlayedControlPlane


async def test_an_answer_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = PlayedControlPlane(next_table=b"table", metrics_text="text", router_report=None)
    plane.begin(monkeypatch)
    router = ControlPlaneForRouter("router-1")
    assert await router.next_table(7, 20.0) == b"table"
    assert await router.metrics_text() == "text"
    await router.report("{}")
    assert plane.calls == [("next_table", 7, 20.0, "router-1"), ("metrics_text",), ("router_report", "router-1", "{}")]
    assert not any(response.cancelled for response in plane.responses)


async def test_a_unit_says_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(app_name="ep-1.r-r1", replica_tag="ep-1.r-r1#unit#abcd1234")
    monkeypatch.setattr(unit_control_plane, "serve", SimpleNamespace(get_replica_context=lambda: context))
    assert this_unit() == Unit("ep-1", "r1", "abcd1234")
    plane = PlayedControlPlane(unit_phase=None, unit_report=None)
    plane.begin(monkeypatch)
    unit = ControlPlaneForUnit(this_unit())
    await unit.phase("checking weights")
    await unit.report("{}")
    assert plane.calls == [
        ("unit_phase", "ep-1", "r1", "abcd1234", "checking weights"),
        ("unit_report", "ep-1", "r1", "abcd1234", "{}"),
    ]


async def test_a_call_is_given_up_after_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = PlayedControlPlane()
    plane.begin(monkeypatch)
    with pytest.raises(TimeoutError):
        await call("anything", deadline_s=0.01)
    assert [response.cancelled for response in plane.responses] == [True]


async def test_a_call_that_is_given_up_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = PlayedControlPlane()
    plane.begin(monkeypatch)
    waiting = asyncio.create_task(call("anything", deadline_s=60))
    await plane.asked.acquire()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert [response.cancelled for response in plane.responses] == [True]
