"""What is published by hand is found, and looking for it costs the object store little."""

from pathlib import Path

import pytest

from app.control_plane.platform import Platform
from app.control_plane.reconciler import LOOK_EVERY_S as LOOPS_S
from app.control_plane.services.models import LOOK_EVERY_S
from app.core.errors import NotFound
from app.core.quality import QUALITY, Verdict
from app.core.records import Version
from app.settings import Settings
from app.store.layout import publish_folder
from app.store.objects import open_store
from tests.control_plane.compressions import CARD, INT8, WORSE
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import ONE_DATABASE, by_name, publish_model, spec

pytestmark = ONE_DATABASE


class Trial:
    """A platform whose loops stand still, by a clock of its own; `listings` counts how often all models are listed."""

    def __init__(self, open_platform: OpenPlatform, monkeypatch: pytest.MonkeyPatch):
        self.now_s = 1000.0
        self.listings = 0
        self.platform: Platform = open_platform(clock=lambda: self.now_s)
        for loop in self.platform.loops:
            loop.stop()
        adopt = self.platform.models.adopt

        def counted() -> None:
            self.listings += 1
            adopt()

        monkeypatch.setattr(self.platform.models, "adopt", counted)

    def step(self, seconds: int) -> None:
        """As often as the loop does while it is busy, or nearly."""
        for _ in range(seconds):
            self.platform.reconciler.step()
            self.now_s += 1

    def create(self, name: str, **fields: str) -> None:
        self.platform.endpoints.create("default", spec(name, **fields))


@pytest.fixture
def trial(open_platform: OpenPlatform, monkeypatch: pytest.MonkeyPatch) -> Trial:
    return Trial(open_platform, monkeypatch)


def test_a_model_that_is_missing_is_looked_for_once_a_minute(trial: Trial, settings: Settings) -> None:
    trial.platform.declarations.declare([spec("early", model="Model-2"), spec("other", precision="AWQ-W4A16")])
    trial.step(5 * int(LOOPS_S))
    assert 3 <= trial.listings <= 5
    publish_model(settings, "m-2", "Model-2")
    trial.step(int(LOOPS_S) + 3)
    assert by_name(trial.platform)["early"].state == "healthy"
    assert by_name(trial.platform)["other"].state == "abnormal"


def test_what_is_broken_otherwise_is_not_looked_for(trial: Trial) -> None:
    trial.platform.declarations.declare([spec("bad", machine_type="gpu-9")])
    trial.step(3 * int(LOOPS_S))
    assert by_name(trial.platform)["bad"].state == "abnormal"
    assert trial.listings == 0


def test_callers_who_ask_for_what_there_is_not_do_not_list_the_store_each(trial: Trial, settings: Settings) -> None:
    for _ in range(20):
        with pytest.raises(NotFound):
            trial.create("early", model="Model-2")
    assert trial.listings == 1
    publish_model(settings, "m-2", "Model-2")
    trial.now_s += LOOK_EVERY_S
    trial.create("early", model="Model-2")
    assert trial.listings == 2
    trial.now_s += LOOK_EVERY_S
    trial.create("known")
    trial.platform.endpoints.patch("default", by_name(trial.platform)["known"].id, {"model": "Model-2"})
    assert trial.listings == 2  # nothing is missing


def test_what_failed_its_gate_is_known_to_have_failed_by_a_registry_that_is_rebuilt(
    trial: Trial, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / QUALITY).write_text(Verdict(card=CARD, failures=(WORSE,)).model_dump_json())
    names = {"model_id": "m-2", "name": "Model-2", "base_model": "Tiny-Llama"}
    publish_folder(open_store(settings), tmp_path, precision=INT8, **names)  # type: ignore[arg-type]
    trial.platform.models.adopt()
    [version] = trial.platform.registry.find(Version, model_id="m-2")
    assert (version.state, version.quality, version.quality_failures) == ("failed_quality", CARD, (WORSE,))
