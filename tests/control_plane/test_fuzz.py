"""Whatever is sent to the control API: it answers, in one shape, and never with its own insides."""

import os
import random
from collections.abc import Callable

import hypothesis.configuration
import pytest

from app.control_plane.platform import Platform
from tests.control_plane.fuzzing import Fuzzer
from tests.control_plane.platforms import ONE_DATABASE
from tests.control_plane.worlds import World
from tests.soak import record

pytestmark = pytest.mark.timeout(400)

EXAMPLES, SOAK_EXAMPLES = 3, 60
SEED = 20_260_131


@pytest.fixture(autouse=True, scope="module")
def hypothesis_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What hypothesis keeps is nobody's but these tests'."""
    hypothesis.configuration.set_hypothesis_home_dir(tmp_path_factory.mktemp("hypothesis"))


@pytest.fixture
def world(open_platform: Callable[..., Platform]) -> World:
    return World(open_platform(keys_per_role=10_000, unfinished_jobs_per_workspace=10_000))


@ONE_DATABASE
def test_every_operation_answers_whatever_it_is_sent(world: World) -> None:
    fuzzer = Fuzzer(world, SEED)
    fuzzer.run(EXAMPLES)
    assert fuzzer.faults == []
    # It got behind the doors: most operations did what was asked for at least once.
    done = {operation for operation, statuses in fuzzer.statuses.items() if min(statuses) < 300}
    assert len(done) > len(fuzzer.statuses) * 2 / 3, sorted(set(fuzzer.statuses) - done)


@ONE_DATABASE
def test_another_workspace_sees_and_changes_nothing_whatever_it_asks(world: World) -> None:
    for _ in range(3):
        world.renew()
    _, _, key = world.platform.workspaces.create("theirs")
    before = world.belongings()
    fuzzer = Fuzzer(world, SEED)
    fuzzer.run_for({"authorization": f"Bearer {key}"}, EXAMPLES, secrets={one for one in before if len(one) > 8})
    assert fuzzer.faults == []
    assert world.belongings() == before


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_operation_answers_whatever_it_is_sent_at_length(world: World, database_url: str | None) -> None:
    seed = int(os.environ.get("MODELUNIT_FUZZ_SEED") or random.randrange(1 << 30))
    fuzzer = Fuzzer(world, seed)
    fuzzer.run(SOAK_EXAMPLES)
    figures = {
        "seed": seed,
        "operations": len(fuzzer.statuses),
        "requests": sum(map(len, fuzzer.statuses.values())),
        "faults": len(fuzzer.faults),
    }
    record(f"fuzz_{'postgresql' if database_url else 'sqlite'}", figures)
    assert fuzzer.faults == [], f"with MODELUNIT_FUZZ_SEED={seed}"
