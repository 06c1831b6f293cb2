"""`modelunit jobs create finetune`, `estimate`, `plot`, `resume`, `export` and `delete`, on a real control plane."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from app.cli.tuning_plot import svg
from app.core.records import DEFAULT_WORKSPACE
from tests.cli.real_platform import Here
from tests.cli.runner import done, modelunit, told
from tests.control_plane.platforms import until
from tests.control_plane.trainings import BASE, Training, add_base

FINETUNE = ("jobs", "create", "finetune", "--model", BASE, "--dataset", "s3://bucket/facts.jsonl", "--output", "v1.2")


@pytest.fixture
def training(here: Here) -> Training:
    """A job as the command makes it, that runs."""
    add_base(here.platform)
    job = told(*FINETUNE, "--iterations", "100", "--machine-type", "cpu-small")
    assert (job["name"], job["spec"]["output_model_name"]) == ("v1-2", "v1.2")
    found = Training(here.platform, here.cluster, here.platform.jobs.get(DEFAULT_WORKSPACE, job["id"]))
    found.becomes("running")
    return found


def test_a_training_from_its_file_to_its_model(training: Training, tmp_path: Path) -> None:
    nothing = modelunit("jobs", "plot", training.id)
    assert (nothing.exit_code, "has not trained yet" in nothing.stderr) == (1, True)
    training.tells(40, loss=1.5)
    picture = tmp_path / "loss.svg"
    assert done("jobs", "plot", training.id, "--out", str(picture)).strip() == str(picture)
    assert "lm loss" in picture.read_text()
    assert modelunit("jobs", "plot", training.id, "--out", "loss.png").exit_code == 2
    until(lambda: training.job.eta_s)
    assert "120.0" in done("jobs", "list", "--type", "finetune")

    assert told("jobs", "stop", training.id)["state"] == "stopping"
    until(training.is_told_to_stop)
    training.writes_checkpoint(41)
    training.stops()
    training.becomes("stopped")
    assert "goes on" in done("jobs", "resume", training.id)
    training.becomes("running")
    training.completes()
    made = training.becomes("completed").output_model
    refused = modelunit("jobs", "export", training.id)
    assert f"is model {made} already" in refused.stderr
    assert "1000 iterations on 1 cards: 40.00 to 40.00 hours" in done("jobs", "estimate", BASE)
    assert told("jobs", "delete", training.id, "--confirm", "DELETE")["deleted"]
    assert told("models", "get", str(made))["job_id"] == training.id


def test_the_fields_may_stand_in_a_file_which_options_change(here: Here, tmp_path: Path) -> None:
    add_base(here.platform)
    file = tmp_path / "spec.json"
    fields: dict[str, Any] = {"model": BASE, "output_model_name": "a", "name": "n", "rank": 8, "iterations": 5}
    file.write_text(json.dumps(fields | {"dataset": {"uri": "s3://bucket/facts.jsonl"}}))
    job = told("jobs", "create", "finetune", "--spec", str(file), "--iterations", "7", "--method", "full")
    assert (job["spec"]["rank"], job["spec"]["iterations"], job["spec"]["method"]) == (8, 7, "full")
    file.write_text("[1]")
    assert modelunit("jobs", "create", "finetune", "--spec", str(file)).exit_code == 2
    wrong = modelunit(*FINETUNE, "--learning-rate", "0.5")
    assert (wrong.exit_code, "learning_rate is 0.5" in wrong.stderr) == (1, True)


def test_an_estimate_of_a_catalogue_model(here: Here) -> None:
    text = done(
        "jobs", "estimate", "Qwen2-7B", "--method", "full", "--flavor", "2*H100", "--epochs", "2", "--rows", "3200"
    )
    assert text.strip() == "200 iterations on 2 cards: 1.12 to 1.57 hours (table 6-4 of the product's guide, Qwen2-7B)"


def test_a_picture_of_any_curve_is_sound() -> None:
    points = [
        {"iteration": 1, "loss": None, "learning_rate": 0.0, "validation_loss": None},
        {"iteration": 2, "loss": -0.5, "learning_rate": 1e-5, "validation_loss": 0.1},
    ]
    for curve in ([], points[:1], points):
        root = ElementTree.fromstring(svg("a < b", curve))
        assert "nan" not in ElementTree.tostring(root, "unicode").lower()
    assert len(root.findall(".//{http://www.w3.org/2000/svg}polyline")) == 3
