"""A process that works on one place with backups, so that a place that hangs holds up nobody: it can be killed.

- Through its standard input comes first which place, then one call after the other, a line of JSON each; so no address stands
  in its command line. Its standard output says "ready", then has one answer to each, and between them how much was moved.
- Moved is what counts for progress: bytes that a folder took or gave, and bytes that the other end of a connection has
  confirmed or sent, whatever library sends them. It is told in steps of `STEP_BYTES`, so that the small talk of a connection
  whose server hangs is none. Of a listing or of copies that a store makes by itself each answer counts as a step.
- It ends when its input does, or the process that started it.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, BinaryIO, Final

from velox_core.backup.destinations import STEP_BYTES, Destination
from velox_core.backup.faults import BackupError
from velox_core.backup.opening import load_libraries, open_here

MODULE: Final = "velox_core.backup.courier"
LOOK_SECONDS: Final = 0.5
_ACKED_AND_RECEIVED: Final = struct.Struct(
    "120xQQ"
)  # struct tcp_info of linux/tcp.h (since 4.1): tcpi_bytes_acked, tcpi_bytes_received


class Moved:
    """How much was moved. Counted by the thread that works, read by the one that tells."""

    def __init__(self) -> None:
        self._in_files = 0
        self._by_socket: dict[str, int] = {}
        self._gone = 0

    def add(self, count: int) -> None:
        """Count bytes of files."""
        self._in_files += count

    def total(self) -> int:
        """Return how many bytes were moved so far; it never falls."""
        now = bytes_by_socket()
        for name, count in self._by_socket.items():
            if now.get(name, -1) < count:  # closed, and maybe another one has its name
                self._gone += count
        self._by_socket = now
        return self._in_files + self._gone + sum(now.values())


def bytes_by_socket() -> dict[str, int]:
    """Return what the other ends of this process's TCP connections have confirmed and sent, by socket."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # closed meanwhile, or no TCP
            name = os.readlink(f"/proc/self/fd/{entry}")
            if name.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(entry))) as copy:
                    info = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AND_RECEIVED.size)
                if len(info) == _ACKED_AND_RECEIVED.size:
                    found[name] = sum(_ACKED_AND_RECEIVED.unpack(info))
    return found


class Answers:
    """The lines to whoever asked."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = Lock()

    def write(self, body: dict[str, Any]) -> None:
        """Write one."""
        with self._lock:
            self._file.write(json.dumps(body).encode() + b"\n")
            self._file.flush()


def act(destination: Destination, call: str, asked: dict[str, Any]) -> Any:
    """Do what is asked; returns JSON values. Raises BackupError."""
    match call:
        case "manifest_content":
            return destination.manifest_content(asked["name"]).decode("latin-1")
        case "taken":
            return sorted(destination.taken())
        case "unfinished":
            return [each.to_json() for each in destination.unfinished()]
        case "put":
            return destination.put(Path(asked["staged"]), asked["name"], asked["made_by"])
        case "fetch":
            return destination.fetch(asked["name"], asked["path"], Path(asked["target"]))
        case "tidy":
            return destination.tidy(asked["made_by"], asked["before_wall_ms"])
        case "remove":
            return destination.remove(asked["name"])
        case "names":
            return destination.names()
        case "probe":
            return destination.probe()
    raise BackupError(f"there is no call {call!r}", "report this as a bug")


def serve(open_at: Callable[[str, str, Moved], Destination], requests: BinaryIO, answers: Answers) -> None:
    """Answer until the input ends."""
    moved = Moved()
    first = json.loads(requests.readline())
    destination = open_at(first["at"], first["account_folder"], moved)
    Thread(target=_tell, args=(moved, answers, int(first["parent"])), name="backup-moved", daemon=True).start()
    load_libraries(first["at"])
    answers.write({"ready": True})
    while line := requests.readline():
        asked = json.loads(line)
        try:
            answers.write({"answer": act(destination, asked.pop("call"), asked)})
        except BackupError as error:
            answers.write({"problem": error.problem, "advice": error.advice})


def _tell(moved: Moved, answers: Answers, parent: int) -> None:
    """Tell what was moved, and end with the process that started this one: no error here may end the telling alone."""
    steps, never = 0, Event()
    while not never.wait(LOOK_SECONDS):
        if os.getppid() != parent:
            os._exit(1)
        try:
            now = moved.total() // STEP_BYTES
        except OSError:  # no descriptor is left to look with: the next look may have one
            continue
        if now > steps:
            steps = now
            try:
                answers.write({"moved": now * STEP_BYTES})
            except (OSError, ValueError):  # nobody listens any more
                os._exit(1)


def main(open_at: Callable[[str, str, Moved], Destination] | None = None) -> None:
    """Be the process: what libraries print goes to the standard error, not between the answers."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with suppress(BrokenPipeError):
        serve(open_at or (lambda place, folder, moved: open_here(place, folder, moved.add)), sys.stdin.buffer, Answers(answers))


if __name__ == "__main__":
    main()
