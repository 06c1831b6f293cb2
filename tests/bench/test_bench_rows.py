"""From figures of several rounds to rows."""

import pytest

from app.bench.rows import rows


def test_a_row_has_medians_and_the_median_of_the_rounds_ratios() -> None:
    ours = {"ttft_p50_ms_c1": [100.0, 300.0, 110.0]}
    plain = {"ttft_p50_ms_c1": [100.0, 100.0, 200.0]}
    assert rows(ours, plain) == [
        {
            "name": "ttft_p50_ms_c1", "unit": "ms", "ours": 110.0, "plain": 100.0, "ratio": 1.0, "spread": 2.45,
            "limit": {"figure": "more", "at_most": 15, "reached": True},
        }
    ]  # fmt: skip


def test_rounds_against_one_figure_are_each_compared_with_that() -> None:
    (row,) = rows({"start_to_first_token_s": [20.0, 30.0, 10.0]}, {"start_to_first_token_s": [40.0]})
    assert (row["ours"], row["plain"], row["ratio"], row["spread"]) == (20.0, 40.0, 0.5, 0.5)


def test_one_round_has_no_spread() -> None:
    (row,) = rows({"tpot_ms_c8": [3.0]}, {"tpot_ms_c8": [4.0]})
    assert (row["ratio"], row["spread"]) == (0.75, 0.0)


def test_nothing_is_compared_with_zero() -> None:
    (row,) = rows({"idle_cpu_pct": [1.0]}, {"idle_cpu_pct": [0.0]})
    assert (row["ours"], row["plain"], row["ratio"], row["spread"]) == (1.0, 0.0, None, None)


def test_what_only_one_side_has_is_no_row() -> None:
    assert rows({"tpot_ms_c1": [1.0]}, {"tpot_ms_c8": [1.0]}) == []


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("output_tokens_per_s_c16", "tokens/s"),
        ("output_tokens_per_s_c16_vs_default", "tokens/s"),
        ("upload_mib_per_s", "MiB/s"),
        ("ttft_p99_ms_c1", "ms"),
        ("wake_standby_to_first_token_s", "s"),
        ("scale_up_p95_s", "s"),
        ("idle_to_zero_extra_s", "s"),
        ("refusal_p99_ms", "ms"),
        ("sleeping_endpoint_cpu_pct", "% of a core"),
        ("tpot_ms_c8", "ms"),
        ("start_to_first_token_s", "s"),
        ("idle_cpu_pct", "% of a core"),
        ("idle_pss_bytes", "bytes"),
        ("engine_pss_bytes_vs_default", "bytes"),
    ],
)
def test_every_name_has_its_unit(name: str, unit: str) -> None:
    assert rows({name: [1.0]}, {name: [1.0]})[0]["unit"] == unit
