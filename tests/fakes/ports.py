"""A port for a server that is started a moment later.

The system's own choice for "any" is of the ports that it also gives to every connection that somebody makes, and on a busy
machine seconds pass before the server has it: so one is drawn from below those.
"""

from __future__ import annotations

import secrets
import socket
from typing import Final

FIRST, LAST = 20_000, 32_000  # Linux gives connections 32,768 and above
TRIES_MAX: Final = 1_000


def free_port() -> int:
    """Return a port of this machine that nobody listens on, and that no connection is given by chance."""
    for _ in range(TRIES_MAX):
        port = FIRST + secrets.randbelow(LAST - FIRST)
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port from {FIRST} to {LAST} is free")
