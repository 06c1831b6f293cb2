"""Tiers: a lower one takes on less, answers faster and calls for more units sooner."""

import pytest

from app.core.specs import CPU_SMALL, DeploymentMode, EngineSpec, MachineType, ScaleSpec
from app.core.tier_estimates import COMPLETION_TOKENS, PROMPT_TOKENS, UnitSpeed, estimate, unit_speed
from app.core.tiers import TIERS, Tier, concurrency_of, estimated_tiers, units_for

H100 = MachineType(name="h100", accelerator="H100", accelerator_count=1, accelerator_memory_bytes=80 << 30)
GIB = 1 << 30


def speed_of_7b(machine: MachineType = H100, engine: EngineSpec | None = None) -> UnitSpeed | None:
    return unit_speed(
        machine,
        machine.modes[0],
        engine or EngineSpec(),
        weights_bytes=15 * GIB,
        parameters=7.6e9,
        kv_bytes_per_token=1 << 16,
    )


@pytest.mark.parametrize("machine", [CPU_SMALL, H100])
@pytest.mark.parametrize("max_num_seqs", [1, 3, 64, 4096])
def test_levels_go_up_to_what_the_engine_takes(machine: MachineType, max_num_seqs: int) -> None:
    low, medium, high = (concurrency_of(ScaleSpec(tier=name), machine, max_num_seqs) for name in TIERS)
    assert 1 <= low <= medium <= high == max_num_seqs
    assert concurrency_of(ScaleSpec(), machine, max_num_seqs) == high


def test_a_number_wins_over_a_tier() -> None:
    assert concurrency_of(ScaleSpec(tier="low", target_concurrency=24), H100, 64) == 24


@pytest.mark.parametrize("machine", [CPU_SMALL, H100])
def test_a_lower_tier_answers_faster_and_carries_less(machine: MachineType) -> None:
    tiers = estimated_tiers(machine, 64, speed_of_7b(machine))
    assert [tier.name for tier in tiers] == ["low", "medium", "high"]
    assert not any(tier.measured for tier in tiers)
    for figure in ("ttft_ms", "tpot_ms", "tps"):
        values = [getattr(tier, figure) for tier in tiers]
        assert values == sorted(values)
        assert values[0] > 0


def test_an_estimate_is_within_reason() -> None:
    """Of a 7B model on one H100, alone: reading 3000 tokens takes about 0.1 s, writing one about 7 ms."""
    speed = speed_of_7b()
    assert speed
    alone = estimate(1, speed)
    assert alone.ttft_ms == pytest.approx(92, rel=0.1)
    assert alone.tpot_ms == pytest.approx(7, rel=0.2)


def test_tokens_a_second_are_those_of_the_requests_in_their_time() -> None:
    speed = UnitSpeed(1e12, 1e12, parameters=1e9, weights_bytes=2e9)
    of_16 = estimate(16, speed)
    assert of_16.ttft_ms is not None
    assert of_16.tpot_ms is not None
    each_s = (of_16.ttft_ms + COMPLETION_TOKENS * of_16.tpot_ms) / 1000
    assert of_16.tps == pytest.approx(16 * (PROMPT_TOKENS + COMPLETION_TOKENS) / each_s, rel=0.05)


def test_requests_for_which_the_cache_has_no_room_wait() -> None:
    room = UnitSpeed(1e12, 1e12, parameters=1e9, weights_bytes=2e9, kv_bytes_per_token=1e4)
    narrow = UnitSpeed(1e12, 1e12, 1e9, 2e9, 1e4, kv_bytes=4 * 3300 * 1e4)
    assert estimate(4, narrow) == estimate(4, room)
    full, half_waiting = estimate(4, narrow), estimate(8, narrow)
    assert (half_waiting.tps, half_waiting.tpot_ms) == (full.tps, full.tpot_ms)
    assert (half_waiting.ttft_ms or 0) > (full.ttft_ms or 0) * 2


def test_what_nobody_can_tell_is_not_made_up() -> None:
    any_card = MachineType(name="gpu-1", accelerator_count=1)
    assert speed_of_7b(any_card) is None
    unknown = unit_speed(
        H100, DeploymentMode(), EngineSpec(), weights_bytes=None, parameters=None, kv_bytes_per_token=None
    )
    assert unknown is None
    for tier in estimated_tiers(any_card, 64, None):
        assert (tier.ttft_ms, tier.tpot_ms, tier.tps) == (None, None, None)
        assert units_for(1000.0, tier, 1) is None


@pytest.mark.parametrize(("tps", "step", "units"), [(1, 1, 1), (1000, 1, 1), (1001, 1, 2), (1, 4, 4), (4001, 4, 8)])
def test_units_for_so_many_tokens_are_whole_steps(tps: float, step: int, units: int) -> None:
    assert units_for(tps, Tier("high", 64, 1.0, 1.0, 1000.0, measured=False), step) == units
