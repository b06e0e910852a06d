"""Sockets that another's client leaves to the garbage collector."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


@contextmanager
def sockets_let_go(api: str) -> Iterator[None]:
    """Let the client's threads drop sockets to this server at any time, also in a test of another folder that comes later.

    Args:
        api: the server's address. A socket to anywhere else that nobody closed is an error as ever.
    """
    peer, tell = f"raddr=('127.0.0.1', {urlsplit(api).port})", sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not (isinstance(unraisable.exc_value, ResourceWarning) and peer in str(unraisable.exc_value)):
            tell(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = tell
