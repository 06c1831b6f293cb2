"""What routers and units tell the control plane about themselves, every few seconds."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

StatusClass = Literal["2xx", "4xx", "429", "5xx"]
"""How a request ended; 429 is not counted among 4xx."""
STATUS_CLASSES: tuple[StatusClass, ...] = get_args(StatusClass)

Count = Annotated[int, Field(ge=0)]
Sum = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Moment = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Unix time in seconds."""


def status_class(status: int) -> StatusClass:
    """The class that an HTTP status counts in."""
    if status == 429:
        return "429"
    if status < 400:
        return "2xx"
    return "4xx" if status < 500 else "5xx"


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True)


class EndpointReport(_Report):
    """One router's figures of one endpoint since the router started."""

    requests: dict[StatusClass, Count]
    """Requests that ended. One whose stream broke off after status 200 counts by the error it ended with; one whose
    caller left before the first byte counts as 4xx."""
    ttft_ms_sum: Sum
    """From the request's arrival to the first bytes of its answer; of streamed answers only."""
    ttft_count: Count
    duration_ms_sum: Sum
    """From the request's arrival to its end, however it ended."""
    duration_count: Count
    running: Count
    """Requests under way now."""
    last_request_at: Moment
    """When the last one arrived, whether it was let in or not."""


class RouterReport(_Report):
    """Everything is cumulative since `started_at`, so that a report that is lost costs nothing.

    An endpoint that left the routing table is left out once its last figures were reported; if it comes back, it
    counts from zero again. A report follows every few seconds while anything changes, else half a minute after
    the one before.
    """

    started_at: Moment
    endpoints: dict[str, EndpointReport]
    keys: dict[str, Moment]
    """Hashes of the keys that were used of late -> when last."""
    prometheus: str
    """This router's own exposition; every sample has the label `router`."""


class EngineStats(_Report):
    """What an engine has done since it started, and how it is at this moment."""

    requests: Count = 0
    """Answers that ended, complete or not; what the engine refused is not among them."""
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    ttft_ms_sum: Sum = 0.0
    """From a request's arrival in the engine's process to its first token; of streamed answers only."""
    ttft_count: Count = 0
    tpot_ms_sum: Sum = 0.0
    """From the first token to the last, divided by `tpot_count` the mean time per token; of streamed answers only."""
    tpot_count: Count = 0
    """Tokens after the first."""
    running: Count = 0
    """Requests that the engine computes now."""
    waiting: Count = 0
    """Requests that wait for the engine."""
    kv_cache_pct: Annotated[float, Field(ge=0, le=100)] | None = None
    """How full the KV cache is; None when the engine does not say."""


class UnitReport(_Report):
    """One unit's figures; the engine's are cumulative since `started_at`."""

    started_at: Moment
    engine: EngineStats
    up_s: Sum = 0.0
    """How long the unit has been ready to answer, by its own clock."""
    cpu_pct: Sum | None = None
    """CPU time of the unit's processes since the report before, in percent of one core; None in the first report."""
    memory_bytes: Count | None = None
    """Main memory of the unit's processes, shared pages divided among those that share them."""
    accelerator_pct: Annotated[float, Field(ge=0, le=100)] | None = None
    """How busy the unit's cards are, their mean; None without cards, or where the driver does not say."""
    accelerator_memory_bytes: Count | None = None
    """Used on the unit's cards."""
