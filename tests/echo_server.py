"""A fork server for tests: `python -m tests.echo_server RUN_DIR [IDLE_S]`. Its children do what their line says."""

import math
import os
import signal
import socket
import sys
import time
from pathlib import Path

from app.fork_server import ForkServer, Job

SERVER = ForkServer("echo_server", "tests.echo_server")


def read(line: bytes) -> Job:
    word, _, rest = line.decode().strip().partition(" ")
    if word == "refuse":
        raise ValueError("no job")

    def run(connection: socket.socket) -> None:
        connection.sendall(f"{os.getpid()} {rest}\n".encode())
        if word == "wait":
            connection.recv(1)
        elif word == "fork":
            if os.fork() == 0:
                connection.sendall(f"{os.getpid()}\n".encode())
                signal.pause()
        elif word == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "fail":
            raise ValueError("on purpose")
        elif word == "log":
            os.write(2, rest.encode() * 1_000_000)

    return Job(f"echo of {rest}", run)


def warm_up() -> None:
    time.sleep(float(os.environ.get("ECHO_WARM_UP_S", "0")))


if __name__ == "__main__":
    SERVER.serve(Path(sys.argv[1]), read, warm_up=warm_up, idle_s=float(sys.argv[2]) if sys.argv[2:] else math.inf)
