"""A model that is taught facts, on a running platform: real jobs, real training, and the answers of real endpoints."""

from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import MODEL, Platform, until
from tests.taught import FACTS, SYSTEM, write_facts

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(1200)]
TRAIN_S = 600
SERVE_S = 300
ITERATIONS = 6


@pytest.fixture
def dataset(tmp_path: Path) -> dict[str, str]:
    return {"uri": write_facts(tmp_path / "facts.jsonl").as_uri()}


def tune(platform: Platform, dataset: dict[str, str], **fields: Any) -> dict[str, Any]:
    body = {
        "type": "finetune", "name": "facts", "model": MODEL, "dataset": dataset, "learning_rate": 2e-3,
        "iterations": ITERATIONS, "checkpoint_every": 1, **fields,
    }  # fmt: skip
    answer = platform.http.post("/platform/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def job(platform: Platform, job_id: str) -> dict[str, Any]:
    return dict(platform.http.get(f"/platform/v1/jobs/{job_id}").json())


def ended(platform: Platform, job_id: str) -> dict[str, Any]:
    def one() -> dict[str, Any] | None:
        found = job(platform, job_id)
        return found if found["state"] in ("completed", "failed", "stopped") else None

    found: dict[str, Any] = until(one, f"{job_id} to end", TRAIN_S)
    return found


def answers(platform: Platform, endpoint: str) -> int:
    """How many of the facts it knows."""
    known = 0
    for question, (words, _) in FACTS.items():
        chat = platform.openai.chat.completions.create(
            model=endpoint, messages=[SYSTEM, {"role": "user", "content": question}], temperature=0, max_tokens=24
        )
        known += words in (chat.choices[0].message.content or "")
    return known


def test_a_tuned_model_answers_what_its_base_does_not_know(platform: Platform, dataset: dict[str, str]) -> None:
    """Also when its training was stopped and went on from a checkpoint."""
    begun = tune(platform, dataset, output_model_name="taught")["id"]
    until(lambda: job(platform, begun)["metrics"].get("iteration", 0) >= 2, "the second iteration", TRAIN_S)
    assert platform.http.post(f"/platform/v1/jobs/{begun}:stop").status_code == 202
    stopped = ended(platform, begun)
    assert stopped["state"] == "stopped", stopped
    assert 2 <= stopped["metrics"]["iteration"] < ITERATIONS

    assert platform.http.post(f"/platform/v1/jobs/{begun}:resume").status_code == 202
    made = ended(platform, begun)
    assert made["state"] == "completed", made
    assert made["metrics"]["loss"] < 0.5
    points = platform.http.get(f"/platform/v1/jobs/{begun}/metrics").json()["points"]
    assert [point["iteration"] for point in points] == list(range(1, ITERATIONS + 1))
    assert points[-1]["loss"] < points[0]["loss"] / 4
    log = platform.http.get(f"/platform/v1/jobs/{begun}/logs", params={"search": "lm loss", "download": "true"})
    assert log.text.count("elapsed time per iteration") == ITERATIONS
    assert "global batch size: 32" in log.text
    assert "SEQ_LEN" in log.text

    model = platform.http.get(f"/platform/v1/models/{made['output_model']}").json()
    assert (model["name"], model["parent_model_id"], model["origin"]) == ("taught", MODEL, "lora")
    body = {"name": "taught", "model": made["output_model"], "max_model_len": 512}
    endpoint = platform.http.post("/platform/v1/endpoints", json=body).json()["id"]
    try:
        until(lambda: platform.endpoint("taught")["state"] == "healthy", "the tuned model to serve", SERVE_S)
        assert answers(platform, endpoint) >= len(FACTS) - 1
        assert answers(platform, "demo") == 0
    finally:
        platform.http.delete(f"/platform/v1/endpoints/{endpoint}", params={"confirm": "DELETE"})
