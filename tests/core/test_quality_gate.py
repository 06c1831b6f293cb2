"""Which cards pass which gates, and what is said of those that do not."""

import math
from typing import Any, get_args

import pytest

from app.core.quality import Gate, Probe, QualityCard, default_gate, failures, gate_of
from app.core.specs import Precision


def card(**fields: Any) -> QualityCard:
    usual = {
        "perplexity_before": 10.0, "perplexity_after": 10.0, "kl_mean": 0.0, "kl_p99": 0.0, "greedy_agreement": 1.0,
        "greedy_tokens": 400, "size_before_bytes": 1000, "size_after_bytes": 400, "held_out_tokens": 4000,
        "held_out_sha256": "ab", "probes": (Probe(name="facts", before=10, after=10, of=12),),
    }  # fmt: skip
    return QualityCard(**usual | fields)


@pytest.mark.parametrize("precision", get_args(Precision))
def test_every_precision_has_all_bounds(precision: Precision):
    gate = default_gate(precision)
    assert None not in gate.model_dump().values()
    assert failures(card(), gate) == ()
    assert gate_of(precision, None) == gate


def test_wished_bounds_are_completed():
    gate = gate_of("AWQ-W4A16", Gate(perplexity_increase=0.5))
    assert gate == default_gate("AWQ-W4A16").model_copy(update={"perplexity_increase": 0.5})


@pytest.mark.parametrize(
    ("fields", "gate", "sentence"),
    [
        (
            {"perplexity_after": 11.0}, {"perplexity_increase": 0.05},
            "Perplexity on held-out text rose by 10.0 %, from 10.00 to 11.00; allowed: 5.0 %.",
        ),
        ({"kl_mean": 0.2}, {"kl_mean": 0.1}, "The mean KL of next-token distributions is 0.200 nats; allowed: 0.1."),
        (
            {"kl_p99": 2.0}, {"kl_p99": 1.5},
            "The 99th percentile of the KL of next-token distributions is 2.000 nats; allowed: 1.5.",
        ),
        (
            {"greedy_agreement": 0.7}, {"greedy_agreement": 0.8},
            "Greedy answers agree in 70.0 % of 400 tokens; wanted: at least 80.0 %.",
        ),
        (
            {"probes": (Probe(name="facts", before=10, after=7, of=12),)}, {"probes_lost": 0.2},
            "The probes lost 30.0 % of their right answers (facts 7 of 12 after 10); allowed: 20.0 %.",
        ),
    ],
)  # fmt: skip
def test_what_is_beyond_a_bound_is_told_with_both_numbers(
    fields: dict[str, Any], gate: dict[str, float], sentence: str
):
    assert failures(card(**fields), Gate(**gate)) == (sentence,)
    assert failures(card(**fields), Gate()) == ()


def test_bounds_themselves_pass_and_gains_do_too():
    gate = Gate(perplexity_increase=0.05, kl_mean=0.1, kl_p99=1, greedy_agreement=0.8, probes_lost=0.0)
    edge = card(perplexity_after=10.5, kl_mean=0.1, kl_p99=1.0, greedy_agreement=0.8)
    assert failures(edge, gate) == ()
    better = card(perplexity_after=9.0, probes=(Probe(name="facts", before=5, after=9, of=12),))
    assert failures(better, gate) == ()
    assert better.probes_lost == pytest.approx(-0.8)


def test_what_is_no_number_never_passes():
    wrong = card(perplexity_after=math.nan, kl_mean=math.nan, kl_p99=math.inf, greedy_agreement=math.nan)
    assert len(failures(wrong, default_gate("AWQ-W4A16"))) == 4


def test_several_failures_are_all_told():
    assert len(failures(card(perplexity_after=100.0, kl_mean=3.0, greedy_agreement=0.1), default_gate("W4A8"))) == 3


def test_figures_that_follow_from_others():
    found = card(tokens_per_s_before=100.0, tokens_per_s_after=125.0)
    assert (found.speedup, found.size_ratio) == (1.25, 0.4)
    assert card().speedup is None
    assert card(probes=()).probes_lost == 0


def test_a_card_survives_being_stored():
    found = card(where="a machine", measured_with={"dtype": "float32"})
    assert QualityCard.model_validate_json(found.model_dump_json()) == found
