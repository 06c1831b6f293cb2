"""The control plane's own rows, with few endpoints."""

import os
import tempfile

import pytest

from app.bench import records
from app.bench.records import PlayedCluster, measure_records
from app.bench.rows import rows_alone

NAMES = ["list_1000_endpoints_p99_ms", "reconcile_1000_endpoints_ms", "routing_table_push_1000_ms"]


def test_each_row_has_a_figure_of_each_round_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("bench")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(records, "PAGES", 5)
    taken = measure_records(2, endpoints=150)
    assert list(taken) == NAMES
    assert all(len(figures) == 2 and min(figures) > 0 for figures in taken.values())
    assert [(row["name"], row["unit"], row["plain"]) for row in rows_alone(taken)] == [(n, "ms", None) for n in NAMES]
    assert os.listdir(folder) == []


def test_endpoints_that_do_not_become_healthy_give_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlayedCluster, "deploy", lambda *_: None)
    with pytest.raises(RuntimeError, match="the endpoints are scheduling"):
        measure_records(1, endpoints=2)
