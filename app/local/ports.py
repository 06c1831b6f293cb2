"""Loopback ports that nothing uses now."""

import contextlib
import socket

from app.local import StartFailed

ANSWER_TIMEOUT_S = 5.0


def free_port() -> int:
    """One port."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many different ports."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def answers(address: str) -> bool:
    """Whether somebody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_TIMEOUT_S):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def check_usable(host: str, port: int) -> None:
    """Raises StartFailed when nobody can listen there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartFailed(
                f"{host}:{port} cannot be used ({error.strerror}); "
                "stop what listens there or set MODELUNIT_HTTP_PORT to another port"
            ) from None
