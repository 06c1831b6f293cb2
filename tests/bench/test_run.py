"""The whole benchmark, with servers that are names and a client that makes its figures up."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.bench import arms, compression, idle
from app.bench import run as benchmark
from app.bench.limits import LIMITS
from app.bench.load import Figures, Server, figures
from app.bench.s3_server import NotInstalled
from app.settings import Settings
from app.store.layout import publish_folder
from app.store.objects import open_store
from app.weights.prepare import DEMO_ID, DEMO_NAME

CORES = 4
LEVELS = (1, 8, 16)
BY_LEVEL = ("output_tokens_per_s", "ttft_p50_ms", "ttft_p99_ms", "tpot_ms")
NAMES = {f"{name}_c{level}" for name in BY_LEVEL for level in LEVELS} | {
    "start_to_first_token_s",
    "idle_cpu_pct",
    "idle_pss_bytes",
    "wake_to_first_token_s",
    "wake_standby_to_first_token_s",
    "scale_up_p95_s",
    "idle_to_zero_extra_s",
    "refusal_p99_ms",
    "overload_tpot_ratio",
    "overload_router_growth_bytes",
    "overload_recovery_s",
    "sleeping_endpoint_cpu_pct",
    "router_request_p50_ms",
    "router_requests_per_s",
    "router_cpu_per_token_us",
    "router_long_prompt_added_ms",
    "upload_mib_per_s",
    "finetune_lora_tokens_per_s",
    "finetune_lora_tokens_per_s_vs_tuned",
    "smoothquant_compression_s",
    "awq_compression_s",
    "smoothquant_serving_tokens_per_s_c8",
    "compression_peak_apart_ratio",
    "validation_70b_s",
    "list_1000_endpoints_p99_ms",
    "reconcile_1000_endpoints_ms",
    "routing_table_push_1000_ms",
}
"""What people and programs look for in bench.json; rows that others add end in _vs_default."""


class Machine:
    """Both arms and the client. Ours is best with one thread, plain with all cores, and twice as fast then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.started: list[str] = []
        self.running: list[str] = []
        self.fails_for: str | None = None
        self.has_s3_server = True
        monkeypatch.setattr(os, "cpu_count", lambda: CORES)
        monkeypatch.setattr(arms, "platform", self._platform)
        monkeypatch.setattr(arms, "plain", self._plain)
        monkeypatch.setattr(arms, "plain_default", self._plain_default)
        monkeypatch.setattr(benchmark, "measure", self._measure)
        monkeypatch.setattr(benchmark, "measure_elastic", self._measure_elastic)
        monkeypatch.setattr(benchmark, "measure_router", self._measure_router)
        monkeypatch.setattr(benchmark, "measure_upload", self._measure_upload)
        monkeypatch.setattr(benchmark, "measure_tuning", self._measure_tuning)
        monkeypatch.setattr(benchmark, "measure_compression", self._measure_compression)
        monkeypatch.setattr(benchmark, "measure_70b", lambda run_dir, rounds: {"validation_70b_s": [2.0] * rounds})
        monkeypatch.setattr(benchmark, "measure_records", self._measure_records)
        monkeypatch.setattr(idle, "SETTLE_S", 0.0)
        monkeypatch.setattr(idle, "cost", self._cost)
        monkeypatch.setattr(idle, "bare_ray", self._bare_ray)

    @contextlib.contextmanager
    def _start(self, name: str, start_s: float) -> Iterator[arms.Started]:
        assert self.running == [], "two arms at once"
        self.started.append(name)
        self.running.append(name)
        yield arms.Started(Server(f"http://{name}:1", "m", "key", Path()), start_s, "a-run-that-never-was")
        self.running.remove(name)

    def _platform(self, settings: Settings, threads: int, model: Path) -> contextlib.AbstractContextManager:
        assert (model / "config.json").exists()
        return self._start(f"ours-{threads}", 20.0)

    def _plain(self, model: Path, threads: int, log: Path) -> contextlib.AbstractContextManager:
        assert log.parent.is_dir()
        return self._start(f"plain-{threads}", 15.0)

    def _plain_default(self, model: Path, log: Path, say: benchmark.Say) -> contextlib.AbstractContextManager:
        return self._start("default", 80.0)

    def _measure(self, server: Server, levels: tuple[int, ...]) -> dict[int, Figures]:
        name = server.base_url.removeprefix("http://").removesuffix(":1")
        rate = {"ours-1": 80.0, "ours-4": 60.0, "plain-1": 70.0, "plain-4": 160.0, "default": 40.0}[name]
        result = {
            "failed": int(name == self.fails_for), "errors": ["Service Unavailable"], "output_lens": [128, 128],
            "output_throughput": rate, "median_ttft_ms": 50.0, "p99_ttft_ms": 90.0, "median_tpot_ms": 10.0,
        }  # fmt: skip
        return {level: figures(result) for level in levels}

    def _measure_elastic(
        self, settings: Settings, rounds: int, say: benchmark.Say
    ) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        assert self.running == [self.started[-1]] == ["ours-1"]
        wakes = {"wake_to_first_token_s": [30.0] * rounds, "wake_standby_to_first_token_s": [20.0] * rounds}
        names = (
            *("scale_up_p95_s", "idle_to_zero_extra_s", "refusal_p99_ms", "sleeping_endpoint_cpu_pct"),
            *("overload_tpot_ratio", "overload_router_growth_bytes", "overload_recovery_s"),
        )
        return wakes, {name: [1.0] for name in names}

    def _measure_router(self, settings: Settings, rounds: int, say: benchmark.Say) -> benchmark.Figured:
        assert self.running == [self.started[-1]] == ["ours-1"]
        names = ("router_request_p50_ms", "router_requests_per_s", "router_cpu_per_token_us")
        ours, plain = ({name: [figure] * rounds for name in names} for figure in (1.0, 2.0))
        return ours, plain, {"router_long_prompt_added_ms": [0.5] * rounds}

    def _measure_upload(self, rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        assert self.running == []
        if not self.has_s3_server:
            raise NotInstalled("there is no server")
        return {"upload_mib_per_s": [90.0] * rounds}, {"upload_mib_per_s": [100.0] * rounds}

    def _measure_tuning(self, model: Path, rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        assert self.running == []
        assert (model / "config.json").exists()
        names = ("finetune_lora_tokens_per_s", "finetune_lora_tokens_per_s_vs_tuned")
        return {name: [300.0] * rounds for name in names}, {name: [100.0] * rounds for name in names}

    def _measure_compression(
        self, model: Path, rounds: int
    ) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, list[float]]]:
        assert self.running == []
        ours: dict[str, list[float]] = {name: [100.0] * rounds for name in (*compression.ROWS, compression.SPEED)}
        return ours, {name: [100.0] * rounds for name in ours}, {compression.PEAK: [1.05] * rounds}

    def _measure_records(self, rounds: int) -> dict[str, list[float]]:
        assert self.running == []
        names = ("list_1000_endpoints_p99_ms", "reconcile_1000_endpoints_ms", "routing_table_push_1000_ms")
        return {name: [20.0] * rounds for name in names}

    def _cost(self, of: list[psutil.Process]) -> tuple[float, int]:
        assert len(self.running) == 1
        return 12.5, 500 << 20

    def _bare_ray(self, settings: Settings, port: int) -> tuple[float, int]:
        assert self.running == []
        self.started.append("bare")
        return 10.0, 400 << 20


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With something published as the demo model, so that nothing is converted."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    home = tmp_path / "home"
    publish_folder(
        open_store(Settings(home=home / "bench")), folder,
        model_id=DEMO_ID, name=DEMO_NAME, base_model=DEMO_NAME, precision="BF16",
    )  # fmt: skip
    return home


def test_every_documented_row_is_in_the_file_and_in_the_table(
    machine: Machine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = benchmark.run(home, 3, lambda _: None)
    assert json.loads((home / "bench.json").read_text()) == measured
    by_name = {row["name"]: row for row in measured}
    assert len(by_name) == len(measured)
    assert set(by_name) >= NAMES
    assert all(name.endswith("_vs_default") for name in set(by_name) - NAMES)
    assert {tuple(row) for row in measured} == {("name", "unit", "ours", "plain", "ratio", "spread", "limit")}
    assert {row["name"] for row in measured if row["limit"]} >= set(LIMITS) - {"validation_70b_read_bytes"}
    assert by_name["output_tokens_per_s_c16"]["ratio"] == 0.5  # ours / plain, each at its own best
    assert by_name["start_to_first_token_s"] == {
        "name": "start_to_first_token_s", "unit": "s", "ours": 20.0, "plain": 80.0, "ratio": 0.25, "spread": 0.0,
        "limit": {"figure": "ratio", "at_most": 0.8, "reached": True},
    }  # fmt: skip
    assert by_name["output_tokens_per_s_c16_vs_default"]["ratio"] == 2.0
    assert by_name["idle_cpu_pct"]["ratio"] == 1.25
    assert by_name["wake_to_first_token_s"]["ratio"] == 0.375  # of what plain default takes to start
    assert by_name["wake_standby_to_first_token_s"]["ratio"] == 0.25
    assert by_name["scale_up_p95_s"]["ours"] == 1.0
    assert by_name["upload_mib_per_s"]["ratio"] == 0.9
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[1:-1]] == [row["name"] for row in measured]
    assert "ours 1, plain 4" in printed[-1]
    lines = {line.split()[0]: line for line in printed[1:-1]}
    assert lines["start_to_first_token_s"].rstrip().endswith(" reached: ratio at most 0.8")
    assert lines["output_tokens_per_s_c16"].rstrip().endswith(" NOT reached: ratio at least 0.95")
    assert lines["tpot_ms_c16"].rstrip().endswith(" -")


def test_arms_alternate_one_at_a_time_at_the_thread_count_that_is_best_for_each(machine: Machine, home: Path) -> None:
    benchmark.run(home, 3, lambda _: None)
    trials, rounds = machine.started[:4], machine.started[4:]
    assert sorted(trials) == ["ours-1", "ours-4", "plain-1", "plain-4"]
    assert rounds == ["ours-1", "plain-4"] * 3 + ["default", "ours-1", "bare", "ours-1"]


def test_one_part_is_measured_by_itself_and_leaves_the_file_alone(
    machine: Machine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = benchmark.run(home, 2, lambda _: None, "router")
    assert {row["name"] for row in measured} == {name for name in NAMES if name.startswith("router_")}
    assert machine.started == ["ours-1"]
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(measured)
    assert not (home / "bench.json").exists()


def test_without_an_s3_server_the_upload_row_is_left_out_and_why_is_said(machine: Machine, home: Path) -> None:
    machine.has_s3_server = False
    said: list[str] = []
    measured = benchmark.run(home, 1, said.append)
    assert {row["name"] for row in measured} >= NAMES - {"upload_mib_per_s"}
    assert "upload_mib_per_s" not in {row["name"] for row in measured}
    assert "no upload row: there is no server" in said


def test_a_failed_request_ends_the_benchmark_without_a_result(machine: Machine, home: Path) -> None:
    machine.fails_for = "default"
    with pytest.raises(RuntimeError, match=r"1 requests failed.*Service Unavailable"):
        benchmark.run(home, 1, lambda _: None)
    assert not (home / "bench.json").exists()
