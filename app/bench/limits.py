"""What is wanted of the benchmark's rows, and whether they reach it."""

from dataclasses import dataclass
from typing import Any, Literal

Row = dict[str, Any]


@dataclass(frozen=True)
class Limit:
    """A bound for one figure of a row, in the row's unit; `more` is what ours has more than plain."""

    figure: Literal["ours", "ratio", "more"]
    side: Literal["at_most", "at_least"]
    bound: float

    def reached(self, row: Row) -> bool | None:
        """None where the row has no such figure: there is nothing to divide by."""
        value = row["ours"] - row["plain"] if self.figure == "more" else row[self.figure]
        if value is None:
            return None
        return bool(value <= self.bound if self.side == "at_most" else value >= self.bound)


LIMITS = {
    "output_tokens_per_s_c8": Limit("ratio", "at_least", 0.95),
    "output_tokens_per_s_c16": Limit("ratio", "at_least", 0.95),
    "ttft_p50_ms_c1": Limit("more", "at_most", 15),
    "start_to_first_token_s": Limit("ratio", "at_most", 0.8),
    "idle_cpu_pct": Limit("more", "at_most", 5),
    "idle_pss_bytes": Limit("more", "at_most", 400 << 20),
    "wake_to_first_token_s": Limit("ratio", "at_most", 0.5),
    "wake_standby_to_first_token_s": Limit("ratio", "at_most", 0.2),
    "scale_up_p95_s": Limit("ours", "at_most", 2),
    "idle_to_zero_extra_s": Limit("ours", "at_most", 2),
    "refusal_p99_ms": Limit("ours", "at_most", 50),
    "overload_tpot_ratio": Limit("ours", "at_most", 1.1),
    "overload_router_growth_bytes": Limit("ours", "at_most", 16 << 20),
    "overload_recovery_s": Limit("ours", "at_most", 5),
    "sleeping_endpoint_cpu_pct": Limit("ours", "at_most", 0.5),
    "router_request_p50_ms": Limit("more", "at_most", 1),
    "router_long_prompt_added_ms": Limit("ours", "at_most", 1),
    "router_requests_per_s": Limit("ratio", "at_least", 0.85),
    "router_cpu_per_token_us": Limit("ratio", "at_most", 0.5),
    "upload_mib_per_s": Limit("ratio", "at_least", 0.9),
    "finetune_lora_tokens_per_s": Limit("ratio", "at_least", 2.5),
    "finetune_lora_tokens_per_s_vs_tuned": Limit("ratio", "at_least", 1.1),
    "smoothquant_compression_s": Limit("ratio", "at_most", 1.05),
    "awq_compression_s": Limit("ratio", "at_most", 1.05),
    "compression_peak_apart_ratio": Limit("ours", "at_most", 1.1),
    "smoothquant_serving_tokens_per_s_c8": Limit("ratio", "at_least", 1.15),
    "validation_70b_s": Limit("ours", "at_most", 5),
    "validation_70b_read_bytes": Limit("ours", "at_most", 20e6),
    "list_1000_endpoints_p99_ms": Limit("ours", "at_most", 50),
    "reconcile_1000_endpoints_ms": Limit("ours", "at_most", 200),
    "routing_table_push_1000_ms": Limit("ours", "at_most", 100),
}
"""By the name of the row; the others are there to be looked at."""


def judged(row: Row) -> Row:
    """The row with a `limit`: which figure, `at_most` or `at_least` how much, and whether it is reached; or None."""
    limit = LIMITS.get(row["name"])
    said = limit and {"figure": limit.figure, limit.side: limit.bound, "reached": limit.reached(row)}
    return row | {"limit": said}


def in_words(said: Row | None) -> str:
    """A row's `limit` for a person."""
    if said is None:
        return "-"
    side = "at most" if "at_most" in said else "at least"
    verdict = {True: "reached", False: "NOT reached", None: "unknown"}[said["reached"]]
    return f"{verdict}: {said['figure']} {side} {said.get('at_most', said.get('at_least')):,}"
