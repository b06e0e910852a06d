"""A channel that does what a test says, and a local web server that takes what apprise's json:// scheme posts."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from velox_core.ports import Severity


class FakeChannel:
    """Answers with the reasons of `answers`, one after the other, then with ''. `gate` keeps a delivery waiting."""

    def __init__(self, name: str, minimum_severity: Severity = Severity.INFO, answers: tuple[str, ...] = ()) -> None:
        self.name = name
        self.minimum_severity = minimum_severity
        self.answers = list(answers)
        self.seen: list[tuple[Severity, str, str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.warm_ups = 0
        self.killed = False
        self.closed = False

    def warm_up(self) -> str:
        self.warm_ups += 1
        return ""

    def deliver(self, severity: Severity, title: str, body: str) -> str:
        self.entered.set()
        self.gate.wait()
        self.seen.append((severity, title, body))
        return self.answers.pop(0) if self.answers else ""

    def kill(self) -> None:
        self.killed = True
        self.gate.set()

    def close(self) -> None:
        self.closed = True

    @property
    def titles(self) -> list[str]:
        return [title.partition("] ")[2] for _, title, _ in self.seen]


class Hook:
    """The posts that a local server took; `status` is its answer, `hangs` keeps it from answering."""

    def __init__(self) -> None:
        self.posts: list[dict[str, str]] = []
        self.status = 200
        self.hangs = threading.Event()
        self.port = 0


@contextmanager
def local_hook() -> Iterator[Hook]:
    """Serve on a free port of this machine."""
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if hook.hangs.is_set():
                stop.wait()
            self.send_response(hook.status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    stop = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hook.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        stop.set()
        server.shutdown()
        thread.join()
        server.server_close()
