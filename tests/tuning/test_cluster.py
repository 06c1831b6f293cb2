"""Which Ray a training finds, without starting one."""

import socket

import pytest

from app.core.errors import Unavailable
from app.tuning.cluster import connect
from app.tuning.crew import Crew


def test_a_cluster_that_does_not_answer_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(Unavailable, match=f"No Ray answers at {address}.*leave RAY_ADDRESS out"):
            connect(Crew())
