"""The control plane dies at each step of its work, and the next one ends where it would have ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.control_plane.args import ControlPlaneArgs
from app.control_plane.faults import STEPS, die_once
from app.control_plane.platform import Platform
from app.core.records import Endpoint
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import ONE_DATABASE, WAIT_S, FakeCluster, by_name, spec


class Killed(BaseException):
    """Passes through whatever handles exceptions, as a death does."""


class Killer:
    """In place of the real one: raises where that would kill."""

    def __init__(self, step: str):
        self.step = step
        self.armed = True
        self.reached: list[str] = []

    def __call__(self, step: str) -> None:
        self.reached.append(step)
        if self.armed and step == self.step:
            raise Killed(step)


@pytest.fixture
def killer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Killer:
    killer = Killer(request.param)
    monkeypatch.setattr("app.control_plane.platform.die_once", lambda steps, home: killer)
    return killer


def by_hand(platform: Platform) -> Platform:
    for loop in platform.loops:
        loop.stop()
    return platform


def work(platform: Platform) -> None:
    for _ in range(5):
        platform.reconciler.step()


@pytest.mark.parametrize("killer", [step for step in STEPS if step not in ("removing", "removed")], indirect=True)
def test_a_death_while_it_deploys_or_deletes_loses_nothing_and_doubles_nothing(
    open_platform: OpenPlatform, cluster: FakeCluster, killer: Killer, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = by_hand(open_platform())
    made = platform.endpoints.create("default", spec("one"))
    died = False
    try:
        work(platform)
        platform.endpoints.delete("default", made.id)
        work(platform)
    except Killed:
        died = True
    assert died, killer.reached
    monkeypatch.undo()
    platform = open_platform()
    (endpoint,) = platform.registry.find(Endpoint)
    assert endpoint.id == made.id
    by_hand(platform)
    work(platform)
    (endpoint,) = platform.registry.find(Endpoint)
    if endpoint.state == "deleting":
        assert endpoint.deleted_at is not None
        assert cluster.applications == {}
    else:
        assert (endpoint.state, endpoint.observed_generation) == ("healthy", endpoint.generation)
        assert set(cluster.applications) == {(made.id, endpoint.revision)}


@pytest.mark.parametrize("killer", STEPS, indirect=True)
def test_a_death_while_it_replaces_a_revision_leaves_one_that_serves(
    open_platform: OpenPlatform, cluster: FakeCluster, killer: Killer, monkeypatch: pytest.MonkeyPatch
) -> None:
    killer.armed = False
    platform = by_hand(open_platform())
    made = platform.endpoints.create("default", spec("one"))
    work(platform)
    old = by_name(platform)["one"].revision
    killer.armed = True
    platform.endpoints.patch("default", made.id, {"max_model_len": 64})
    try:
        work(platform)
        assert killer.step in ("entombing", "entombed")  # nothing is deleted here
    except Killed:
        pass
    record = by_name(platform)["one"]
    assert (made.id, record.revision) in cluster.applications  # what the routers send callers to is there
    monkeypatch.undo()
    platform = by_hand(open_platform())
    work(platform)
    now = by_name(platform)["one"]
    assert (now.id, now.state) == (made.id, "healthy")
    assert now.revision != old
    assert set(cluster.applications) == {(made.id, now.revision)}


@ONE_DATABASE
@pytest.mark.parametrize("killer", [""], indirect=True)
def test_steps_are_named_in_their_order_and_for_their_endpoint(open_platform: OpenPlatform, killer: Killer) -> None:
    platform = by_hand(open_platform())
    platform.endpoints.create("default", spec("one"))
    work(platform)
    platform.endpoints.delete("default", by_name(platform)["one"].id)
    work(platform)
    plain = [step for step in killer.reached if " " not in step]
    assert list(dict.fromkeys(plain)) == [
        "planned", "deploying", "deployed", "publishing", "published", "writing", "written",
        "removing", "removed", "entombing", "entombed",
    ]  # fmt: skip
    assert set(plain) == set(STEPS)
    for step in STEPS:
        assert f"{step} one" in killer.reached


def test_each_death_comes_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from app.control_plane.faults import die_once; "
        "at = die_once(['deployed one', 'written'], Path(sys.argv[1])); "
        "at('deploying one'); at('deployed'); at('deployed one'); at('written'); print('alive')"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    for _ in ("deployed one", "written"):
        died = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert (died.returncode, died.stdout) == (-signal.SIGKILL, "")
    again = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (again.returncode, again.stdout) == (0, "alive\n")


def test_without_a_fault_nobody_dies(tmp_path: Path) -> None:
    at = die_once([], tmp_path)
    for step in STEPS:
        at(step)
    assert os.listdir(tmp_path) == []


def test_only_steps_that_there_are_can_be_named() -> None:
    for known in (*STEPS, "deployed one"):
        assert ControlPlaneArgs(die_at=[known]).die_at == [known]
    for unknown in ("", "lunch", "deployed one two", "planned\n"):
        with pytest.raises(ValidationError, match="die_at"):
            ControlPlaneArgs(die_at=[unknown])
