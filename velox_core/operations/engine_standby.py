"""An engine's process, started before it is known what to trade: it imports, waits for its order, and then is the engine.

- For replays that a flow process begins by itself: what the flow imports and what the engine imports get ready side by side.
  An engine that trades by the clock is never started this way.
- It opens no file, no store and no network before its order, and it gets nothing but what a fresh process would get:
  arguments, environment, output, and the day's lock.
- It waits on a socket that ends with whoever started it; then it ends, too. An order that is not whole starts nothing.
"""

from __future__ import annotations

import atexit
import json
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

STANDBY: Final = ("-m", "velox_core.cli", "run", "--standby")
ORDER_SECONDS_MAX: Final = 5.0  # to hand an order over: it fits into the socket's buffer, or the process is of no use
END_SECONDS_MAX: Final = 5.0
_HEAD: Final = b"order\n"  # what the file descriptors travel with


@dataclass(slots=True, kw_only=True)
class _Spare:
    process: subprocess.Popen[bytes]
    channel: socket.socket


_spare: Final[list[_Spare]] = []  # none or one


def get_engine_ready() -> None:
    """Start the process that the next replay's engine will be. A machine that cannot costs only the time that it saves."""
    if _spare:
        return
    with suppress(OSError):
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, *STANDBY],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # as an engine's: no signal of the terminal reaches it
            )
        _spare.append(_Spare(process=process, channel=ours))
        atexit.register(dismiss_engine)


def dismiss_engine() -> None:
    """End the process, if it got no order."""
    while _spare:
        _end(_spare.pop())


def _end(spare: _Spare) -> None:
    """Kill it before its channel ends: what it was told so far must not look like all of it."""
    spare.process.kill()
    with suppress(subprocess.TimeoutExpired):
        spare.process.wait(END_SECONDS_MAX)
    spare.channel.close()


def order_engine(
    arguments: Sequence[str], environ: Mapping[str, str], *, output: int, lock: int
) -> subprocess.Popen[bytes] | None:
    """Have the process run the engine.

    Args:
        arguments: of `velox`, as "run", "--json", ...
        environ: its whole environment.
        output: file descriptor of what it prints.
        lock: file descriptor of the day's lock, which it keeps as long as it lives.
    Returns: the process; None when there is none that can: then nothing runs, and none will.
    """
    if not _spare:
        return None
    spare, is_whole = _spare.pop(), False
    order = json.dumps({"arguments": list(arguments), "environ": dict(environ)}).encode()
    try:
        if spare.process.poll() is not None:
            return None
        spare.channel.settimeout(ORDER_SECONDS_MAX)
        socket.send_fds(spare.channel, [_HEAD], [output, lock])
        spare.channel.sendall(order + b"\n")
        is_whole = True  # it is acted on when the channel ends
    except OSError:
        return None
    finally:
        if is_whole:
            spare.channel.close()
        else:
            _end(spare)  # it is gone before another one is started
    return spare.process


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the process is to run; `output` and `lock` are file descriptors of its own."""

    arguments: list[str]
    environ: dict[str, str]
    output: int
    lock: int


def receive_order(channel: socket.socket) -> Order | None:
    """Wait for the order. Returns None when whoever started this process ended without one, or within one."""
    try:
        head, descriptors, _flags, _address = socket.recv_fds(channel, len(_HEAD), 2)
        body = b""
        while part := channel.recv(65_536):
            body += part
        if head != _HEAD or len(descriptors) != 2 or not body.endswith(b"\n"):
            return None
        order = json.loads(body)
    except (OSError, ValueError):
        return None
    return Order(arguments=order["arguments"], environ=order["environ"], output=descriptors[0], lock=descriptors[1])
