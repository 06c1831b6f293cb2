"""Host, engine process and client for real, with the simulated engine: fork, unix socket, and tokens over TCP."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from app.core.errors import EngineStartError, PlatformError, UnitLost
from app.core.frames import PIECE_BYTES, FrameReader, Kind, new_token
from app.router.stream import TokenListener
from app.unit import engine_host
from app.unit.engine import EngineDied
from app.unit.engine_sockets import socket_folder
from tests.unit.engines import WAIT_S, Caller, StartEngine, end_host, hosts_of, until_ended


async def test_an_engine_starts_and_streams_to_the_router(start_engine: StartEngine, listener: TokenListener) -> None:
    engine = await start_engine(word="hi ")
    assert psutil.Process(engine.pid).is_running()
    await engine.check_health()
    caller = Caller(listener, engine, max_tokens=3)
    events = (await caller.read_all()).decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["hi "] * 3
    assert (caller.stream.status, caller.stream.content_type) == (200, "text/event-stream")
    assert await caller.call == "complete"


async def test_an_answer_that_is_not_streamed_comes_whole(start_engine: StartEngine, listener: TokenListener) -> None:
    caller = Caller(listener, await start_engine(), stream=False, max_tokens=2)
    answer = json.loads(await caller.read_all())
    assert answer["usage"]["completion_tokens"] == 2
    assert caller.stream.content_type == "application/json"


async def test_whole_answers_come_no_faster_than_a_router_takes_them(start_engine: StartEngine) -> None:
    """It shares one connection among all of its callers, who would all be lost with it."""
    engine = await start_engine(word="x" * 1024, between_tokens_s=0.0, first_token_s=0.0)
    come = asyncio.Queue[Kind]()

    async def read_late(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)  # by then all are made; too short it could only miss a loss
        frames = FrameReader(PIECE_BYTES)
        while data := await reader.read(1 << 20):
            for frame in frames.feed(data):
                if frame.kind != Kind.DATA:
                    come.put_nowait(frame.kind)

    async with await asyncio.start_server(read_late, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        body = json.dumps({"messages": [], "max_tokens": 700, "n": 10}).encode()  # 7 MiB
        calls = [asyncio.create_task(engine.chat(new_token(), address, "req-1", body)) for _ in range(12)]
        async with asyncio.timeout(WAIT_S):
            assert await asyncio.gather(*calls) == ["complete"] * len(calls)
            assert sorted([await come.get() for _ in range(24)]) == [Kind.HEAD] * 12 + [Kind.END] * 12


async def test_an_answer_that_is_too_long_is_refused_alone(start_engine: StartEngine, listener: TokenListener) -> None:
    engine = await start_engine(word="x" * 1024, between_tokens_s=0.0)
    other = Caller(listener, engine, max_tokens=900)
    caller = Caller(listener, engine, stream=False, max_tokens=900, n=10)
    with pytest.raises(PlatformError, match="longer than 8 MiB") as caught:
        await caller.read_all()
    assert (caught.value.status, caught.value.body()["error"]["code"]) == (413, "answer_too_large")  # type: ignore[index]
    assert await caller.call == "failed"
    assert caller.stream.tokens
    assert caller.stream.tokens.completion_tokens == 9000  # it was made all the same
    assert (await other.read_all()).endswith(b"[DONE]\n\n")


async def test_many_answers_at_once_do_not_mix(start_engine: StartEngine, listener: TokenListener) -> None:
    engine = await start_engine(between_tokens_s=0.0)
    callers = [Caller(listener, engine, max_tokens=count) for count in range(1, 20)]
    answers = await asyncio.gather(*(caller.read_all() for caller in callers))
    assert [answer.count(b"chunk") for answer in answers] == list(range(1, 20))


async def test_a_cancelled_call_aborts_the_engines_work(start_engine: StartEngine, listener: TokenListener) -> None:
    engine = await start_engine(between_tokens_s=0.001, die_after_tokens=2000)
    caller = Caller(listener, engine, max_tokens=1_000_000)
    assert await caller.read()
    caller.call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller.call
    # Had the work gone on, the engine would be dead before these are through.
    for _ in range(3):
        next_one = Caller(listener, engine, max_tokens=300)
        assert (await next_one.read_all()).endswith(b"[DONE]\n\n")
    await engine.check_health()


async def test_a_killed_engine_fails_its_calls_and_says_so(start_engine: StartEngine, listener: TokenListener) -> None:
    engine = await start_engine(stall_after_tokens=1)
    callers = [Caller(listener, engine) for _ in range(3)]
    for caller in callers:
        assert await caller.read()
    os.kill(engine.pid, signal.SIGKILL)
    async with asyncio.timeout(WAIT_S):
        await engine.died.wait()
        for caller in callers:
            with pytest.raises(UnitLost):
                await caller.call
            with pytest.raises(UnitLost):  # the router hears of it by its own socket
                await caller.read_all()
    with pytest.raises(EngineDied):
        await engine.check_health()
    with pytest.raises(UnitLost):
        await Caller(listener, engine).call


async def test_an_engine_can_be_told_to_die(start_engine: StartEngine, listener: TokenListener) -> None:
    engine = await start_engine(die_after_tokens=5)
    assert (await Caller(listener, engine, max_tokens=5).read_all()).endswith(b"[DONE]\n\n")
    with pytest.raises(UnitLost):
        await Caller(listener, engine, max_tokens=1).call
    assert engine.died.is_set()


async def test_why_an_engine_cannot_start_is_told(start_engine: StartEngine) -> None:
    with pytest.raises(EngineStartError) as caught:
        await start_engine(fail_start="not enough memory:\n 5 GiB wanted")
    assert EngineStartError.reason_in(str(caught.value)) == "not enough memory: 5 GiB wanted"


async def test_an_engine_that_takes_too_long_is_given_up(start_engine: StartEngine, module_run_dir: Path) -> None:
    before = {child.pid for host in hosts_of(module_run_dir) for child in host.children()}
    with pytest.raises(EngineStartError, match="not ready after 0 s"):
        await start_engine(start_s=1.0, timeout_s=0.1)
    for host in hosts_of(module_run_dir):
        for child in host.children():
            if child.pid not in before:
                await until_ended(child.pid)


async def test_an_engine_ends_when_its_units_socket_closes(start_engine: StartEngine) -> None:
    engine = await start_engine()
    engine.close()
    await until_ended(engine.pid)


async def test_a_router_that_cannot_be_reached_is_told(start_engine: StartEngine) -> None:
    engine = await start_engine()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(UnitLost):
            await engine.chat(bytes(16), address, "req-1", b"{}")
    await engine.check_health()


async def test_two_units_at_once_start_one_host_also_in_a_home_with_a_long_path(
    start_engine: StartEngine, own_run_dir: Path, listener: TokenListener
) -> None:
    assert len(str(own_run_dir)) > 108
    one, two = await asyncio.gather(start_engine(run_dir=own_run_dir), start_engine(run_dir=own_run_dir))
    assert one.pid != two.pid
    host = psutil.Process(one.pid).ppid()
    assert psutil.Process(two.pid).ppid() == host
    for other in hosts_of(own_run_dir):  # one that found the other running may still be on its way out
        if other.pid != host:
            await until_ended(other.pid)
    assert own_run_dir.joinpath(engine_host.SOCKET).stat().st_mode & 0o777 == 0o600
    assert (await Caller(listener, two, max_tokens=1).read_all()).endswith(b"[DONE]\n\n")

    end_host(own_run_dir)
    await until_ended(one.pid)  # engines do not outlive their host
    await until_ended(two.pid)


def socket_folders(run_dir: Path) -> set[Path]:
    return set(run_dir.glob("engines/*"))


async def test_sockets_go_with_their_engine(start_engine: StartEngine, own_run_dir: Path) -> None:
    engine = await start_engine(run_dir=own_run_dir)
    (folder,) = socket_folders(own_run_dir)
    (folder / "left").touch()
    engine.close()
    await until_ended(engine.pid)
    assert not socket_folders(own_run_dir)


async def test_sockets_of_a_killed_engine_go_with_the_next_start(start_engine: StartEngine, own_run_dir: Path) -> None:
    stays = await start_engine(run_dir=own_run_dir)
    kept = socket_folders(own_run_dir)
    engine = await start_engine(run_dir=own_run_dir)
    (left,) = socket_folders(own_run_dir) - kept
    (left / "left").touch()
    os.kill(engine.pid, signal.SIGKILL)
    await until_ended(engine.pid)
    assert (left / "left").exists()
    await start_engine(run_dir=own_run_dir)
    assert not left.exists()
    assert kept < socket_folders(own_run_dir)

    (host,) = hosts_of(own_run_dir)
    host.kill()
    await until_ended(host.pid)
    await until_ended(stays.pid)
    (own_run_dir / "engines" / "1").mkdir()  # a process that lives, though it is none of ours
    await start_engine(run_dir=own_run_dir)
    assert len(socket_folders(own_run_dir)) == 1


def test_a_socket_folder_has_a_short_name_for_other_processes_too(tmp_path: Path) -> None:
    run_dir = tmp_path / ("long-" * 20)
    with socket_folder(run_dir) as folder:
        assert len(f"{folder}/{uuid.uuid4()}") < 107
        program = f"import socket; socket.socket(socket.AF_UNIX).bind({folder + '/name'!r})"
        subprocess.run([sys.executable, "-c", program], check=True, timeout=WAIT_S)
        (there,) = run_dir.rglob("name")
        assert there.is_socket()
    assert not socket_folders(run_dir)
