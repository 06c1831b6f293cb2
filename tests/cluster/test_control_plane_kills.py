"""The control plane dies at a step of its work, in a real cluster, and so does Serve's own: nobody who calls notices.

The same at each step against a cluster that is played: tests/control_plane/test_faults.py.
"""

import random
from collections import Counter
from typing import Any

import pytest

from app.control_plane.faults import STEPS
from tests.cluster.callers import Callers
from tests.cluster.conftest import MODEL, VICTIM, Platform, until
from tests.soak import record

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SAMPLE = random.Random(1).sample(STEPS, 1)
ANSWERS = 20
"""At the least, while the control plane is away and comes back."""


def endpoints_of_name(platform: Platform, name: str, deleted: bool = False) -> list[dict[str, Any]]:
    params = {"name": name, "deleted": deleted}
    found: list[dict[str, Any]] = platform.http.get("/platform/v1/endpoints", params=params).json()["data"]
    return found


def say(platform: Platform, model: str) -> str | None:
    answer = platform.openai.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=2
    )
    return answer.choices[0].message.content


def live_and_die(platform: Platform, callers: Callers, step: str) -> dict[str, int]:
    """An endpoint is created and deleted, and the control plane dies at this step of it; what became of them."""
    name = VICTIM + step
    failed, answered = len(callers.failures), len(callers.answered_at)
    created = platform.http.post("/platform/v1/endpoints", json={"name": name, "model": MODEL})
    assert created.status_code == 202, created.text
    endpoint_id = created.json()["id"]
    platform.wait_for(name, "healthy")
    assert say(platform, endpoint_id) == "saved saved "
    until(lambda: len(endpoints_of_name(platform, name)) == 1, "the control plane")
    creations = platform.events(name).count("created")
    units = len(platform.engine_pids(name))
    address = f"/platform/v1/endpoints/{endpoint_id}?confirm=DELETE"
    until(lambda: platform.http.delete(address).status_code == 202, "the control plane to take the wish")
    until(lambda: not endpoints_of_name(platform, name), f"{name} to be deleted")
    (tombstone,) = until(lambda: endpoints_of_name(platform, name, deleted=True), "the control plane")
    assert tombstone["id"] == endpoint_id
    until(lambda: not any(endpoint_id in title for title in platform.titles().values()), "its units to leave")
    until(lambda: platform.http.delete(f"{address}&purge=true").status_code == 202, "the tombstone to go")
    assert len(callers.answered_at) - answered >= ANSWERS
    return {
        "deaths": len(list(platform.machine.home.glob(f"died-at-{step}-{name}"))),
        "creations": creations,
        "units": units,
        "units_ever": platform.units_started(endpoint_id),
        "failed_chats": len(callers.failures) - failed,
    }


HARMLESS = {"deaths": 1, "creations": 1, "units": 1, "units_ever": 1, "failed_chats": 0}


@pytest.mark.parametrize("step", SAMPLE)
def test_the_control_plane_dies_and_nothing_is_lost_or_made_twice(
    platform: Platform, callers: Callers, step: str
) -> None:
    assert live_and_die(platform, callers, step) == HARMLESS, callers.failures[:9]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_control_plane_dies_at_each_step(platform: Platform, callers: Callers) -> None:
    total: Counter[str] = Counter()
    for step in STEPS:
        total.update(live_and_die(platform, callers, step))
    record("control_plane_kills", {"steps": len(STEPS), "chats": len(callers.answered_at) - 1, **total})
    assert total == Counter({name: count * len(STEPS) for name, count in HARMLESS.items()}), callers.failures[:9]


def test_serves_controller_dies_and_no_unit_notices(platform: Platform, callers: Callers) -> None:
    name = f"{VICTIM}nothing"
    before = {other: platform.engine_pids(other) for other in ("demo", "steady", "crashing")}
    answered = len(callers.answered_at)
    (controller,) = (process for process, title in platform.titles().items() if "ServeController" in title)
    controller.kill()
    until(lambda: len(callers.answered_at) > answered + ANSWERS, "answers")
    # Its successor carries out wishes.
    created = until(
        lambda: platform.http.post("/platform/v1/endpoints", json={"name": name, "model": MODEL}).json(),
        "the control plane",
    )
    platform.wait_for(name, "healthy")
    assert say(platform, created["id"]) == "saved saved "
    assert platform.units_started(created["id"]) == 1
    address = f"/platform/v1/endpoints/{created['id']}?confirm=DELETE"
    assert platform.http.delete(address).status_code == 202
    until(lambda: platform.http.delete(f"{address}&purge=true").status_code == 202, "the endpoint to go")
    assert {other: platform.engine_pids(other) for other in before} == before
    assert callers.failures == []
