"""A small HTTP server on a thread that answers by a test's rule, hangs, or tears the connection."""

from __future__ import annotations

import http.server
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Reply:
    """What it answers. `hangs` never does; `tears` resets the connection instead, after `body` where there is one."""

    status: int = 204
    body: str | bytes = ""
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    tears: bool = False

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else self.body.encode()


@dataclass(slots=True, kw_only=True)
class Request:
    """What it was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: str


class Served:
    """The requests so far, and what ends those that hang."""

    def __init__(self, rule: Callable[[Request], Reply]) -> None:
        self.rule = rule
        self.requests: list[Request] = []
        self.end = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def written(self) -> list[str]:
        """Return the lines that were posted to the write path."""
        return [line for r in self.requests if r.path.startswith("/api/v2/write") for line in r.body.splitlines()]


@contextmanager
def serving(rule: Callable[[Request], Reply]) -> Iterator[Served]:
    """Serve on a free port."""
    served = Served(rule)

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length).decode()
            request = Request(method=self.command, path=self.path, headers=dict(self.headers.items()), body=body)
            served.requests.append(request)
            reply = served.rule(request)
            if reply.hangs:
                served.end.wait(240)
                return
            if reply.tears:
                self._tear(reply)
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.status != 204:
                self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            if reply.status != 204:
                self.wfile.write(reply.content)

        do_GET = do_POST = do_HEAD = _answer  # noqa: N815 - the names are the library's

        def _tear(self, reply: Reply) -> None:
            if reply.body:
                headers = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
                length = len(reply.content) + 9_999
                self.wfile.write(f"HTTP/1.1 {reply.status} X\r\n{headers}Content-Length: {length}\r\n\r\n".encode())
                self.wfile.write(reply.content)
                self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    served.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.end.set()
        server.shutdown()
        server.server_close()
        thread.join(60)
