"""A port for a server that is started a moment later.

The system's own choice for "any" is of the ports that it also gives to every connection that somebody makes, and on a busy
machine seconds pass before the server has it: so one is drawn from below those. Workers that test side by side draw from
ranges of their own, and none draws a port twice.
"""

from __future__ import annotations

import os
import secrets
import socket
from typing import Final

FIRST, PER_WORKER, WORKERS = 20_000, 1_500, 8  # Linux gives connections 32,768 and above
TRIES_MAX: Final = 1_000
_given: set[int] = set()


def free_port() -> int:
    """Return a port of this machine that nobody listens on, and that no connection is given by chance."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    first = FIRST + worker * PER_WORKER
    for _ in range(TRIES_MAX):
        port = first + secrets.randbelow(PER_WORKER)
        if port in _given:
            continue
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise AssertionError(f"no port from {first} to {first + PER_WORKER} is free")
