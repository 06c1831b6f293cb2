"""Whether rows of the benchmark reach what is wanted of them."""

from typing import Any

import pytest

from app.bench.limits import in_words
from app.bench.rows import rows, rows_alone


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("scale_up_p95_s", 2),
        ("idle_to_zero_extra_s", 2),
        ("refusal_p99_ms", 50),
        ("list_1000_endpoints_p99_ms", 50),
        ("reconcile_1000_endpoints_ms", 200),
        ("routing_table_push_1000_ms", 100),
        ("compression_peak_apart_ratio", 1.1),
    ],
)
def test_a_row_that_is_over_its_limit_says_so(name: str, bound: float) -> None:
    (within,) = rows_alone({name: [bound - 0.1, 9999.0, 0.0]})  # their median counts
    (over,) = rows_alone({name: [bound + 0.1]})
    assert within["limit"] == {"figure": "ours", "at_most": bound, "reached": True}
    assert over["limit"] == {"figure": "ours", "at_most": bound, "reached": False}
    assert in_words(within["limit"]) == f"reached: ours at most {bound}"
    assert in_words(over["limit"]) == f"NOT reached: ours at most {bound}"


@pytest.mark.parametrize(
    ("name", "ours", "plain", "said"),
    [
        ("output_tokens_per_s_c16", 95.0, 100.0, "reached: ratio at least 0.95"),
        ("output_tokens_per_s_c16", 94.0, 100.0, "NOT reached: ratio at least 0.95"),
        ("awq_compression_s", 106.0, 100.0, "NOT reached: ratio at most 1.05"),
        ("smoothquant_serving_tokens_per_s_c8", 116.0, 100.0, "reached: ratio at least 1.15"),
        ("upload_mib_per_s", 89.0, 100.0, "NOT reached: ratio at least 0.9"),
        ("wake_to_first_token_s", 60.0, 120.0, "reached: ratio at most 0.5"),
        ("wake_standby_to_first_token_s", 25.0, 120.0, "NOT reached: ratio at most 0.2"),
        ("ttft_p50_ms_c1", 215.0, 200.0, "reached: more at most 15"),
        ("ttft_p50_ms_c1", 216.0, 200.0, "NOT reached: more at most 15"),
        ("idle_pss_bytes", 2.0 * (400 << 20), 1.0 * (400 << 20), "reached: more at most 419,430,400"),
        ("upload_mib_per_s", 89.0, 0.0, "unknown: ratio at least 0.9"),
        ("tpot_ms_c1", 9000.0, 1.0, "-"),
    ],
)
def test_a_row_with_two_sides_is_judged_by_what_was_wanted_of_it(
    name: str, ours: float, plain: float, said: str
) -> None:
    row: dict[str, Any]
    (row,) = rows({name: [ours]}, {name: [plain]})
    assert in_words(row["limit"]) == said
