"""A bound of time for a whole conversation over HTTP, which httpx has not: its bounds are for one read each.

A server that sends a byte now and then, in its headers, in the head of a chunk or in interim answers without end, never keeps
a reader waiting and never lets it go. So a timer cuts the connection when the time is over: what reads then sees its end, in
whatever it was. No thread is left behind, and what an end that was made so seemed to complete is never taken for whole.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Event, Lock, Timer
from typing import Any

import httpx

from velox_core.backup.manifest import BackupError


class TimeLimit:
    """The connections of one client, and what cuts them. One conversation at a time.

    Args:
        who: whom it talks to, for words.
    """

    def __init__(self, who: str) -> None:
        self._who = who
        self._sockets: list[socket.socket] = []
        self._over = Event()
        self._lock = Lock()  # a connection that is made while the time ends is cut by one of the two

    @property
    def extensions(self) -> dict[str, Any]:
        """Return what each request of the client needs as `extensions`."""
        return {"trace": self._trace}

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Raise BackupError when what is done inside is not done in time, at most a moment after it."""
        if seconds <= 0:
            raise self._too_slow(0.0)
        self._over.clear()
        timer = Timer(seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (httpx.HTTPError, BackupError, OSError, ValueError) as error:
            if self._over.is_set():
                raise self._too_slow(seconds) from error
            raise
        finally:
            timer.cancel()
            timer.join()
        if self._over.is_set():  # an answer without a length ends well where its connection does
            raise self._too_slow(seconds)

    def _too_slow(self, seconds: float) -> BackupError:
        return BackupError(
            f"{self._who}: the server is too slow, it was left after {seconds:.1f} s",
            "look at its load, and at what is between it and this host; then take the backup again",
        )

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            found = info["return_value"].get_extra_info("socket")
            with self._lock:
                self._sockets.append(found)
                if self._over.is_set():
                    _end(found)

    def _cut(self) -> None:
        with self._lock:
            self._over.set()
            for each in self._sockets:
                _end(each)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):  # closed already
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not SSLSocket's, which takes TLS away under its reader
