"""A platform that comes and goes beside another one: broken off, killed, failed, back again, and away."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import MODEL, Machine, Platform, alive, free_port, until

pytestmark = pytest.mark.cluster

FIRST = {"name": "first", "model": "SmolLM2-135M-Instruct", "max_model_len": 2048}
KEPT = {"kept": {"word": "kept "}}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Another HOME and port; whatever a failing test leaves there is stopped."""
    machine = Machine(tmp_path / "home", free_port())
    machine.home.mkdir()
    yield machine
    machine.run("down")


def _begin(machine: Machine, config: Path) -> "subprocess.Popen[str]":
    process = machine.start("up", "--config", str(config))
    until((machine.home / "serve.json").exists, "Ray to run", wait_s=240)
    return process


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_an_interrupted_start_takes_everything_with_it(machine: Machine) -> None:
    interrupted = _begin(machine, machine.write_config(FIRST, simulations=KEPT))
    living = machine.processes()
    os.kill(interrupted.pid, signal.SIGINT)
    _, err = interrupted.communicate(timeout=60)
    # Python ends by the signal itself where it hit an `exec` of a text, as imports of dataclasses have it.
    assert interrupted.returncode in (1, -signal.SIGINT), err
    assert "interrupted" in err
    assert not (machine.home / "serve.json").exists()
    assert not [process for process in living if alive(process)]


@pytest.mark.timeout(800)
def test_killed_and_failed_starts_leave_nothing_in_the_way(
    platform: Platform, machine: Machine, tmp_path: Path
) -> None:
    """Beside another platform: kill -9, a folder with a missing file, a good start, a folder, the end."""
    config = machine.write_config(FIRST, simulations=KEPT)
    killed = _begin(machine, config)
    left = machine.processes()
    folder = Path((machine.home / "run" / "ray_folder").read_text())
    assert folder.is_dir()
    killed.kill()
    killed.communicate(timeout=30)
    assert any(alive(process) for process in left)

    broken = tmp_path / "broken-model"
    shutil.copytree(_weights_of(platform), broken)
    (broken / "model.safetensors").rename(broken / "model-00001-of-00002.safetensors")
    (broken / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    failed = machine.run("up", "--config", str(config), "--model", str(broken))
    assert failed.returncode == 1
    assert "abnormal" in failed.stderr
    assert "model-00002-of-00002.safetensors" in failed.stderr
    assert not [process for process in left if alive(process)]
    assert not folder.exists()

    back = _comes_back_as_it_was(machine)
    _serves_a_folder_on_its_first_endpoint(back, tmp_path)

    living = machine.processes()
    stopped = machine.run("down")
    assert stopped.returncode == 0
    assert not [process for process in living if alive(process)]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", machine.port)) != 0
    assert platform.http.get("/healthz").status_code == 200
    assert machine.run("down").stdout.strip() == "nothing was running"


def _comes_back_as_it_was(machine: Machine) -> Platform:
    """Stopped and started, which gives it a Ray that knows nothing: the same endpoints answer the same keys."""
    before = Platform(machine)
    created = before.http.post("/platform/v1/endpoints", json={"name": "kept", "model": MODEL}).json()
    issued = before.http.post("/platform/v1/api-keys", json={"description": "kept"}).json()
    first, healthy = before.endpoint("first"), before.wait_for("kept", "healthy")
    assert machine.run("down").returncode == 0
    config = machine.write_config(FIRST, simulations=KEPT | {"first": {"word": "first "}})
    good = machine.run("up", "--config", str(config))
    assert good.returncode == 0, good.stderr
    assert "the model says: first first" in good.stdout
    after = Platform(machine)
    assert after.key == before.key
    assert after.endpoint("first")["id"] == first["id"]
    kept = after.wait_for("kept", "healthy")
    same = ("id", "revision", "generation")
    assert {field: kept[field] for field in same} == {field: healthy[field] for field in same}
    caller = after.openai.with_options(api_key=issued["key"])
    answer = caller.chat.completions.create(
        model=created["id"], messages=[{"role": "user", "content": "hi"}], max_tokens=2
    )
    assert answer.choices[0].message.content == "kept kept "
    return after


def _serves_a_folder_on_its_first_endpoint(running: Platform, tmp_path: Path) -> None:
    """Although somebody else has deployed to it since it was started; nothing else is touched."""
    running.deploy(FIRST, simulations=KEPT | {"first": {"word": "new "}})
    until(lambda: "new" in _said_by_first(running), "what was deployed")
    folder = tmp_path / "My-Model"
    folder.mkdir()
    (folder / "config.json").write_text('{"max_position_embeddings": 1024}')
    others = until(lambda: running.engine_pids("kept"), "the control plane")
    before = until(lambda: running.endpoint("first"), "the control plane")

    up = running.machine.run("up", "--model", str(folder))
    assert up.returncode == 0, up.stderr
    assert "runs already" in up.stderr
    assert "the model says: new new" in up.stdout
    now = running.endpoint("first")
    assert (now["id"], now["state"], now["max_model_len"]) == (before["id"], "healthy", 1024)
    model = running.http.get(f"/platform/v1/models/{now['model']}").json()
    assert (model["name"], model["state"]) == ("My-Model", "healthy")
    assert running.engine_pids("kept") == others

    again = running.machine.run("up")
    assert (again.returncode, "the model says: new new" in again.stdout) == (0, True), again.stderr
    assert running.endpoint("first")["model"] == now["model"]


def _said_by_first(platform: Platform) -> str:
    request = {"model": "first", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    answer = platform.http.post("/v1/chat/completions", json=request)
    return str(answer.json()["choices"][0]["message"]["content"])


def _weights_of(platform: Platform) -> Path:
    folder = platform.machine.home / "objects" / "models" / MODEL / "BF16"
    assert (folder / "model.safetensors").exists()
    return folder
