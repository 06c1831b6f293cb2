"""How often a key may ask for changes."""

from collections.abc import Callable

import pytest

from app.control_plane.args import ControlPlaneArgs
from app.control_plane.platform import Platform
from app.control_plane.services import pace
from app.control_plane.services.pace import Pace
from app.core.errors import TooManyRequests
from app.core.records import AuditEntry
from app.settings import Settings
from tests.control_plane.platforms import ONE_DATABASE, admin_key, client_of
from tests.router.tables import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@ONE_DATABASE
async def test_a_loop_does_not_fill_the_audit(
    open_platform: Callable[..., Platform], clock: Clock, settings: Settings
) -> None:
    """Also with a key that may do nothing here."""
    platform = open_platform(clock=clock, changes_per_key_s=3)
    other = platform.keys.issue("default", "inference", "")[1]
    async with client_of(platform, other) as caller, client_of(platform, admin_key(settings)) as admin:
        answers = [await caller.post("/endpoints", json={}) for _ in range(10)]
        assert [answer.status_code for answer in answers] == [403] * 3 + [429] * 7
        assert answers[-1].headers["retry-after"] == "1"
        assert answers[-1].json()["error"]["code"] == "rate_limited"
        assert len(platform.registry.find(AuditEntry)) == 3
        assert (await caller.get("/endpoints")).status_code == 403  # reading has no such limit
        assert (await admin.post("/members", json={"name": "ann", "role": "admin"})).status_code == 201
        clock.now += 1
        assert (await caller.post("/endpoints", json={})).status_code == 403


@ONE_DATABASE
async def test_a_stranger_is_a_stranger_first(open_platform: Callable[..., Platform]) -> None:
    async with client_of(open_platform(changes_per_key_s=1), None) as stranger:
        answers = [await stranger.request("POST", "/endpoints") for _ in range(3)]
        answers.append(await stranger.post("http://test/openapi.json"))
    assert {answer.status_code for answer in answers} <= {401, 405}


def test_so_many_a_second_are_people_and_their_scripts() -> None:
    assert ControlPlaneArgs().changes_per_key_s == 20


def test_keys_that_rest_are_forgotten(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "MAX_BUCKETS", 2)
    paced = Pace(1, clock)
    for key in ("key-1", "key-2", "key-1", "key-3"):
        try:
            paced.take(key)
        except TooManyRequests:
            assert key == "key-1"
    for key in ("key-1", "key-3"):
        with pytest.raises(TooManyRequests):
            paced.take(key)
    paced.take("key-2")
