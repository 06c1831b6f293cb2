"""The router's own listener: uvicorn inside a Serve replica, on a port that the routers of a node share."""

import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from app.router.http_connection import UNREAD_TIMEOUT_S, HttpConnection

KEEP_ALIVE_S = 75
BACKLOG = 2048
UNSENT_BYTES = 128 << 10
"""Of one connection that the kernel takes; by itself it takes megabytes, for callers who read nothing too."""


class HttpServer(uvicorn.Server):
    """uvicorn inside another's process: signals belong to Ray."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_config(app: ASGIApp) -> uvicorn.Config:
    """How the router's own listener serves."""
    return uvicorn.Config(
        app, lifespan="off", http=HttpConnection, ws="none", log_config=None, access_log=False,
        server_header=False, timeout_keep_alive=KEEP_ALIVE_S,
        proxy_headers=False,  # uvicorn would believe whatever a client on this machine says of its address
    )  # fmt: skip


def listen(host: str, port: int) -> socket.socket:
    """The port to serve on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # for the other routers of this node
    # Connections inherit both.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_TIMEOUT_S * 1000))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    listener.bind((host, port))
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener
