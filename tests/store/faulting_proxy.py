"""A proxy before an S3 server that fails as it is told, and notes what went through."""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

CHUNK_BYTES = 64 << 10
ERROR = b'<?xml version="1.0"?><Error><Code>%s</Code><Message>as the test wants it</Message></Error>'
CODES = {403: b"AccessDenied", 404: b"NoSuchUpload", 500: b"InternalError", 503: b"SlowDown"}


@dataclass(frozen=True)
class Request:
    """What a client asked for; `status` is the server's answer, once there is one."""

    method: str
    target: str
    body_bytes: int
    status: int = 0

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def part(self) -> tuple[str, str]:
        """What a PUT puts: the object, and which part of it."""
        return self.key, self.query.get("partNumber", [""])[0]


@dataclass(frozen=True)
class Fault:
    """One way to fail. Bytes are those of the request's body, or of the answer's when the request has none."""

    status: int = 0
    """Answer this, without asking the server."""
    reset_at: int | None = None
    """Reset the connection after so many bytes."""
    cut_at: int | None = None
    """Close the connection after so many bytes of the answer, whatever its length was said to be."""
    bytes_per_s: float | None = None
    lose_answer: bool = False
    """The server does what it is asked, and the client never hears of it."""


class FaultingProxy:
    """Listens on a loopback port until it is closed. `plan` says which fault a request meets; None is none."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.plan: Callable[[Request], Fault | None] = lambda request: None
        self.on_bytes: Callable[[int], None] = lambda count: None
        self.passed: list[Request] = []
        self.under_way = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), partial(_Handler, self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def count(self, change: int) -> None:
        with self._lock:
            self.under_way += change

    def note(self, request: Request) -> None:
        with self._lock:
            self.passed.append(request)

    def moved(self, count: int) -> None:
        with self._lock:
            self.on_bytes(count)

    def stored(self) -> list[tuple[str, str]]:
        """The objects and parts that the server has accepted, as often as it has."""
        return [request.part for request in self.passed if request.method == "PUT" and request.status == 200]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, proxy: FaultingProxy, *arguments: Any) -> None:
        self._proxy = proxy
        super().__init__(*arguments)  # which handles the connection, to its end

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._proxy.count(1)
        try:
            self._pass_on(self._proxy)
        finally:
            self._proxy.count(-1)

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def _pass_on(self, proxy: FaultingProxy) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        request = Request(self.command, self.path, length)
        fault = proxy.plan(request) or Fault()
        if fault.status:
            self.rfile.read(length)
            self._answer(fault.status)
            return
        if fault.reset_at == 0:
            self._reset()
            return
        server = http.client.HTTPConnection(str(proxy.upstream.hostname), proxy.upstream.port, timeout=60)
        try:
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    server.putheader(name, value)
            server.endheaders()
            done = 0
            while done < length:
                chunk = self.rfile.read1(min(CHUNK_BYTES, length - done))
                if not chunk:
                    self.close_connection = True
                    return
                done += len(chunk)
                if fault.reset_at is not None and done > fault.reset_at:
                    self._reset()
                    return
                server.send(chunk)
                proxy.moved(len(chunk))
                self._pace(fault, len(chunk))
            answer = server.getresponse()
            proxy.note(Request(self.command, self.path, length, answer.status))
            if fault.lose_answer:
                self._reset()
                return
            self._forward(answer, fault, proxy, asked_bytes=length)
        finally:
            server.close()

    def _forward(
        self, answer: http.client.HTTPResponse, fault: Fault, proxy: FaultingProxy, *, asked_bytes: int
    ) -> None:
        whole = b"" if answer.getheader("Content-Length") else answer.read()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        if not answer.getheader("Content-Length"):
            self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        done = 0
        while chunk := whole[done : done + CHUNK_BYTES] or answer.read(CHUNK_BYTES):
            if fault.cut_at is not None and done + len(chunk) > fault.cut_at:
                self.wfile.write(chunk[: fault.cut_at - done])
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            done += len(chunk)
            if fault.reset_at is not None and not asked_bytes and done > fault.reset_at:
                self._reset()
                return
            self.wfile.write(chunk)
            if not asked_bytes:
                proxy.moved(len(chunk))
                self._pace(fault, len(chunk))

    def _answer(self, status: int) -> None:
        body = ERROR % CODES[status]
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    @staticmethod
    def _pace(fault: Fault, count: int) -> None:
        if fault.bytes_per_s:
            time.sleep(count / fault.bytes_per_s)
