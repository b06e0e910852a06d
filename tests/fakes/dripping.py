"""A server that answers byte by byte and never comes to an end, in one of the places where no bound of a read sees it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_CHUNKED: Final = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed; boundary=x\r\nTransfer-Encoding: chunked\r\n\r\n"
SHAPES: Final = {  # what it begins with, and what it goes on with
    "header": (b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
    "interim answers": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "head of a chunk": (_CHUNKED + b"5;", b"a"),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n", b"a"),
}
EVERY_SECONDS: Final = 0.05


@contextmanager
def dripping(shape: str) -> Iterator[str]:
    """Serve on a free port until the end; returns the address. Whoever is connected then is cut off."""
    begin, more = SHAPES[shape]
    end = threading.Event()
    threads = []

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65_536)
            connection.sendall(begin)
            while not end.wait(EVERY_SECONDS):
                connection.sendall(more)

    def accept(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                thread = threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True)
                threads.append(thread)
                thread.start()

    listening = socket.create_server(("127.0.0.1", 0))
    accepting = threading.Thread(target=accept, args=(listening,), daemon=True)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        end.set()
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for thread in (accepting, *threads):
            thread.join(60)
