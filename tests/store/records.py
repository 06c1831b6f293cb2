"""A record of each kind."""

from datetime import UTC, datetime

from app.core.key_limits import KeyLimits
from app.core.records import (
    ApiKey,
    AuditEntry,
    Counted,
    Endpoint,
    EndpointMinute,
    Event,
    Job,
    Member,
    Model,
    Replay,
    ScalingDecision,
    UnitStart,
    UsageHour,
    UsageSpool,
    Version,
    Workspace,
)
from app.core.specs import EndpointSpec, EngineSpec, ScaleSpec

NOW = datetime(2026, 1, 31, 9, 30, 0, 123456, tzinfo=UTC)

WORKSPACE = Workspace(id="default", created_at=NOW, name="default")
MODEL = Model(id="m-1", created_at=NOW, workspace="default", name="小模型", base_model="qwen", state="healthy")
VERSION = Version(
    id="v-1", created_at=NOW, model_id="m-1", precision="BF16", prefix="models/m-1/BF16/", digest="d", state="healthy"
)
ENDPOINT = Endpoint(
    id="ep-1",
    created_at=NOW,
    workspace="default",
    spec=EndpointSpec(
        name="demo", model="m-1", scale=ScaleSpec(min_units=1, max_units=3), engine=EngineSpec(kv_cache_bytes=1 << 33)
    ),
)
JOB = Job(
    id="job-1",
    created_at=NOW,
    workspace="default",
    type="finetune",
    name="tune",
    state="queued",
    spec={"learning_rate": 2e-05, "dataset": {"uri": "file:///数据"}, "layers": [1, None, True]},
)
KEY = ApiKey(
    id="key-1",
    created_at=NOW,
    workspace="default",
    role="admin",
    hash="h",
    prefix="mu-abc",
    endpoints=("ep-1", "ep-2"),
    limits=KeyLimits(requests_per_minute=60, concurrency=2),
    expires_at=NOW,
)
EVENT = Event(id="ev-1", created_at=NOW, workspace="default", subject="ep-1", kind="state", message="healthy")
MEMBER = Member(id="mem-1", created_at=NOW, workspace="default", name="小王", role="developer", expires_at=NOW)
AUDIT = AuditEntry(
    id="aud-1",
    created_at=NOW,
    workspace="default",
    actor="key-1",
    request_id="r",
    action="POST /platform/v1/endpoints",
    subject="ep-1",
    status=202,
)
MINUTE = EndpointMinute(id="min-1", created_at=NOW, endpoint_id="ep-1", figures={"requests": 3, "ttft_ms": 81.5})
DECISION = ScalingDecision(
    id="ep-1:rev:1",
    created_at=NOW,
    endpoint_id="ep-1",
    revision="rev",
    signals={"at_s": 1.7e9, "running": 3.5, "units": 1, "idle_s": None},
    rules={"min_units": 0, "headroom": 0.8},
    timers={"idle_since_s": None},
    rule="up",
    bound="requests",
    from_units=1,
    to_units=2,
)
START = UnitStart(
    id="start-1", created_at=NOW, endpoint_id="ep-1", machine_type="cpu-small", phases={"place": 1.5, "load": 4}
)
COUNTED = Counted(id="router-1", created_at=NOW, started_at=1.7e9, counters={"ep-1": {"requests": 3}})
REPLAY = Replay(id="rep-1", created_at=NOW, workspace="default", body_hash="b", record_id="ep-1")
USAGE = UsageHour(
    id="1:default:ep-1:key-1",
    created_at=NOW,
    day="2026-01-31",
    workspace="default",
    endpoint_id="ep-1",
    key_id="key-1",
    requests=3,
    prompt_tokens=1 << 40,
)
SPOOL = UsageSpool(id="router-1-1", created_at=NOW, taken_bytes=1 << 33)
ALL = (
    WORKSPACE, MODEL, VERSION, ENDPOINT, JOB, MEMBER, KEY, EVENT, AUDIT, MINUTE, DECISION, START, COUNTED, USAGE, SPOOL,
    REPLAY,
)  # fmt: skip


def event(number: int, **changes: object) -> Event:
    return EVENT.model_copy(update={"id": f"ev-{number:04}", **changes})
