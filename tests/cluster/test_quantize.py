"""A model that is made smaller on a running platform: a real job, a real version, and the answers of its endpoint.

The model is a tiny one that has read a few texts, so that it is sure of some tokens.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from app.compression.quality.scoring import Scorer
from app.compression.quality.tokens import Reader
from tests.cluster.conftest import Platform, until
from tests.compression.trained_models import write_trained

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(900)]
VALIDATE_S = 180
COMPRESS_S = 600
SERVE_S = 300
INT8 = "SmoothQuant-W8A8"
MOST_APART = 0.2
"""In nats, of a token's log-probability: int8 and another engine against bf16 and transformers."""
QUESTIONS = ("What is the capital of France?", "Name a colour.", "How many days has a week?")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "llama"
    write_trained(folder)
    return folder


@pytest.fixture
def model(platform: Platform, weights: Path) -> Iterator[str]:
    """The ID of a model that is healthy."""
    wish = {"name": "to-be-smaller", "base_model": "Tiny-Llama", "source": {"uri": weights.as_uri()}}
    made = platform.http.post("/platform/v1/models", json=wish)
    assert made.status_code == 202, made.text
    path = f"/platform/v1/models/{made.json()['id']}"
    state = until(lambda: settled(platform, path, "healthy", "failed"), "the model", VALIDATE_S)
    assert state["state"] == "healthy", state
    yield made.json()["id"]
    platform.http.delete(path, params={"confirm": "DELETE"})  # refused while an endpoint of it could be restored


def settled(platform: Platform, path: str, *states: str) -> dict[str, Any] | None:
    found = dict(platform.http.get(path).json())
    return found if found["state"] in states else None


def first_tokens(platform: Platform, endpoint: str, question: str) -> dict[str, float]:
    """The likeliest first tokens of an answer, with their log-probabilities."""
    answer = platform.openai.chat.completions.create(
        model=endpoint, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=1, logprobs=True,
        top_logprobs=10,
    )  # fmt: skip
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    return {one.token: one.logprob for one in logprobs.content[0].top_logprobs}


def test_a_version_in_int8_answers_nearly_as_the_original(platform: Platform, model: str, weights: Path) -> None:
    body = {"precision": INT8, "calibration_samples": 8, "calibration_length": 64}
    answer = platform.http.post(f"/platform/v1/models/{model}/versions", json=body)
    assert answer.status_code == 202, answer.text
    job = answer.json()["job_id"]
    wished = {"name": "int8", "model": model, "precision": INT8, "max_model_len": 512, "accept_quality": True}
    made = platform.http.post("/platform/v1/endpoints", json=wished)  # it waits for its version
    assert made.status_code == 202, made.text
    endpoint = made.json()["id"]
    try:
        path = f"/platform/v1/jobs/{job}"
        ended = until(lambda: settled(platform, path, "completed", "failed", "stopped"), f"{job} to end", COMPRESS_S)
        assert ended["state"] == "completed", ended
        found = platform.http.get(f"/platform/v1/models/{model}/versions/{INT8}").json()
        card = found["quality"]
        assert card["size_after_bytes"] < card["size_before_bytes"]
        assert card["kl_mean"] < 0.05, card
        assert card["tokens_per_s_after"], card["measured_with"]
        assert found["recipe"]["migration_strength"] == 0.5
        assert found["job_id"] == job
        again = platform.http.post(f"/platform/v1/models/{model}/versions", json=body)
        assert again.status_code == 409, again.text

        until(lambda: platform.endpoint("int8")["state"] == "healthy", "the version to serve", SERVE_S)
        original, tokenizer = (
            Scorer(weights, torch.float32, torch.device("cpu")),
            AutoTokenizer.from_pretrained(weights),
        )
        for question in QUESTIONS:
            small = first_tokens(platform, endpoint, question)
            (chat,) = Reader(weights, None).chats([question], 1)
            expected = original.log_probabilities(chat)[-1]
            likeliest = int(expected.argmax())
            token = tokenizer.decode([likeliest])
            assert token in small, (question, token, small)
            assert abs(float(expected[likeliest]) - small[token]) < MOST_APART, (question, token, small)
    finally:
        platform.http.delete(f"/platform/v1/endpoints/{endpoint}", params={"confirm": "DELETE"})
