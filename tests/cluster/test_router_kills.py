"""The only router is killed: callers are refused until the next one listens, and nothing else is any different."""

import time
from typing import Any

import pytest

from tests.cluster.callers import Callers
from tests.cluster.conftest import Platform, until
from tests.soak import record

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SOAK_KILLS = 10
ANSWERS = 20
"""At the least, before each kill and after it."""


def belongings(platform: Platform) -> dict[str, Any]:
    """Every endpoint by its ID: what is kept of it, the units it has had, and the processes of those it has."""
    kept = ("name", "generation", "revision", "state", "created_at")
    return {
        endpoint["id"]: {
            **{field: endpoint[field] for field in kept},
            "units_ever": platform.units_started(endpoint["id"]),
            "engines": platform.engine_pids(endpoint["name"]),
        }
        for endpoint in platform.endpoints()
    }


def settled(endpoints: dict[str, Any]) -> dict[str, Any] | None:
    """None while one of them is still leaving."""
    return None if any(endpoint["state"] == "deleting" for endpoint in endpoints.values()) else endpoints


def kill_the_router(platform: Platform, callers: Callers) -> None:
    """Kill it, and wait for the next one. Callers may fail meanwhile only, and nothing is lost or made twice."""
    before = until(lambda: settled(belongings(platform)), "what earlier tests deleted to be gone")
    assert len(before) >= 3
    assert all(endpoint["engines"] for endpoint in before.values())
    (router,) = platform.listening_routers()
    answered = len(callers.answered_at)
    until(lambda: len(callers.answered_at) >= answered + ANSWERS, "answers from the router")
    outages, failed = callers.outages, len(callers.failures)
    killed_at = time.monotonic()
    router.kill()
    until(lambda: platform.listening_routers() - {router}, "the next router to listen")
    answered = len(callers.answered_at)
    until(lambda: len(callers.answered_at) >= answered + ANSWERS, "answers from the next router")
    assert callers.failed_at[failed] >= killed_at
    assert callers.outages == outages + 1, callers.failures[failed : failed + 9]  # and it ended with the first answer
    reachable = lambda: platform.http.get("/readyz").json()["control_plane"] == "reachable"  # noqa: E731
    until(reachable, "the next router to hear the control plane")
    assert until(lambda: belongings(platform), "the control plane") == before


def test_a_killed_router_is_replaced_and_no_endpoint_is_lost_or_deployed_twice(
    platform: Platform, callers: Callers
) -> None:
    kill_the_router(platform, callers)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_killing_routers_again_and_again(platform: Platform, callers: Callers) -> None:
    for _ in range(SOAK_KILLS):
        kill_the_router(platform, callers)
    figures = {"outages": callers.outages, "longest_outage_s": round(callers.longest_gap_s, 1)}
    record("router_kills", {"kills": SOAK_KILLS, "chats": len(callers.answered_at) - 1, **figures})
    assert callers.outages == SOAK_KILLS
