"""A model that is made smaller on a running platform: a real job, a real version, and the answers of its endpoint."""

from typing import Any

import pytest

from tests.cluster.conftest import MODEL, Platform, until

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(1200)]
COMPRESS_S = 600
SERVE_S = 300
INT8 = "SmoothQuant-W8A8"
MOST_APART = 0.5
"""In nats, of the log-probability of a token that both say first; the mean over an answer is far below."""
QUESTIONS = ("What is the capital of France?", "Name a colour.", "How many days has a week?")


def version(platform: Platform) -> dict[str, Any] | None:
    found = platform.http.get(f"/platform/v1/models/{MODEL}/versions/{INT8}")
    return dict(found.json()) if found.status_code == 200 else None


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


def test_a_version_in_int8_answers_nearly_as_the_original(platform: Platform) -> None:
    body = {"precision": INT8, "calibration_samples": 32, "calibration_length": 256}
    answer = platform.http.post(f"/platform/v1/models/{MODEL}/versions", json=body)
    assert answer.status_code == 202, answer.text
    job = answer.json()["job_id"]
    wished = {"name": "int8", "model": MODEL, "precision": INT8, "max_model_len": 512, "accept_quality": True}
    made = platform.http.post("/platform/v1/endpoints", json=wished)  # it waits for its version
    assert made.status_code == 202, made.text
    endpoint = made.json()["id"]
    try:
        until(
            lambda: platform.http.get(f"/platform/v1/jobs/{job}").json()["state"] in ("completed", "failed", "stopped"),
            f"{job} to end",
            COMPRESS_S,
        )
        ended = platform.http.get(f"/platform/v1/jobs/{job}").json()
        assert ended["state"] == "completed", ended
        found = version(platform)
        assert found is not None
        card = found["quality"]
        assert card["size_after_bytes"] < card["size_before_bytes"]
        assert card["perplexity_after"] < card["perplexity_before"] * 1.15
        assert found["recipe"]["migration_strength"] == 0.5
        again = platform.http.post(f"/platform/v1/models/{MODEL}/versions", json=body)
        assert again.status_code == 409, again.text

        until(lambda: platform.endpoint("int8")["state"] == "healthy", "the version to serve", SERVE_S)
        for question in QUESTIONS:
            original, small = (first_tokens(platform, which, question) for which in ("demo", endpoint))
            likeliest = max(original, key=lambda token: original[token])
            assert likeliest in small, (question, original, small)
            assert abs(original[likeliest] - small[likeliest]) < MOST_APART, (question, original, small)
    finally:
        platform.http.delete(f"/platform/v1/endpoints/{endpoint}", params={"confirm": "DELETE"})
