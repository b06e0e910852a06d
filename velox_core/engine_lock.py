"""The kernel locks of one scope on this host: one engine, one closer; each dies with its process.

- The lease keeps hosts apart and hands out epochs; these locks keep the processes of one host apart, ledger up or down.
- Whoever holds `engine.lock` knows that any earlier engine of the scope on this host is dead, and may take its lease.
- Everything that closes is sent under `closer.lock`. Nobody waits for it in a loop that trades: it is had now, or not.
- To look at a lock is not to take it: any number of lookers keep nobody from it.
- A closer that gave its lock back says so in the file: nothing of it is on its way. One that died with it may have sent an exit
  that has not arrived; whoever comes next waits the longest request out, and only then reads the book.
- A file names who had its lock last: host, process id and the process' start. Only the lock counts; the name serves
  people, whoever must end that very process and no other, and a closer that asks whether somebody closed meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from velox_core.domain.errors import VeloxError
from velox_core.ports import CloserHold, EndOfHolder, LockHolder

ENGINE_LOCK, CLOSER_LOCK = "engine.lock", "closer.lock"  # in a scope's folder
_RECORD_BYTES = 512  # a record with its padding
_FLOCK = struct.Struct("hhqqi4x")  # type, whence, start, length, process id (0): 64-bit Linux


def process_start(pid: int) -> str:
    """Return what tells a process from a later one with its id: the boot and the tick of its start. '' when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{fields[19]}"
    except (OSError, IndexError):
        pass
    import psutil  # no /proc here

    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return ""


def own_holder() -> LockHolder:
    """Return this process as the holder of a lock."""
    return LockHolder(host=socket.gethostname(), pid=os.getpid(), started=process_start(os.getpid()))


class EngineLock:
    """The engine's lock of one scope, held until `release` or the end of the process.

    Raises: VeloxError when another process holds it, naming that process, or when the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open(path)
        if not _lock(self._file):
            holder = _holder_text(_read_holder(self._file))
            os.close(self._file)
            raise VeloxError(
                f"run {path.parent.name} is being traded by {holder}: see `velox status`, end it with "
                "`velox stop --reason ...`, when it does not answer take it over with `velox run --take-over`, "
                "or begin another run with --fresh"
            )
        _write_record(self._file, _record(own_holder()))

    def release(self) -> None:
        """Give the lock back."""
        with contextlib.suppress(OSError):
            os.close(self._file)


class ProcessLock:
    """A lock that this process may take, and may hand on to a process that it starts.

    It is the open file's: a child that inherits `fileno()` keeps it when this process closes it, or is killed.

    Raises: VeloxError when the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open(path)

    def take(self) -> bool:
        """Take the lock if nobody has it, and name this process as its holder."""
        if not _lock(self._file):
            return False
        self.name(own_holder())
        return True

    def name(self, holder: LockHolder) -> None:
        """Name whoever holds the lock from now on."""
        _write_record(self._file, _record(holder))

    def fileno(self) -> int:
        """Return the open file that has the lock."""
        return self._file

    def close(self) -> None:
        """Let go of it; whoever inherited it keeps it."""
        with contextlib.suppress(OSError):
            os.close(self._file)


class CloserLockFile:
    """The closer's lock of one scope. Taking it again is free of cost while it is held.

    Args:
        path: the lock's file.
        request_seconds: the longest that a request of a closer that died may still be on its way; 0 where it ends with it.
        monotonic: seconds that never go back.
    Raises: VeloxError when the file cannot be made.
    """

    def __init__(self, path: Path, *, request_seconds: float = 0.0, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._file = _open(path)
        self._own, self._given_back = _record(own_holder()), _record(own_holder(), given_back=True)
        self._request_seconds = request_seconds
        self._monotonic = monotonic
        self._dead = b""  # the record of a holder that died with the lock, and from when on nothing of it can arrive
        self._dead_until = 0.0
        self._held = False
        self._has_held = False  # ever: what an earlier lock of this process left in the market is not known here

    def take(self) -> CloserHold:
        """Take the lock if nobody has it. FRESH when anybody else had it last, an earlier closing of this process included."""
        if self._held:
            return CloserHold.UNBROKEN
        if not _lock(self._file):
            return CloserHold.ELSEWHERE
        found = _read_record(self._file)
        is_ours = self._has_held and found in (self._own, self._given_back)
        if not is_ours and self._may_still_send(found):
            _unlock(self._file)
            return CloserHold.ELSEWHERE
        self._held = self._has_held = True
        _write_record(self._file, self._own)
        return CloserHold.UNBROKEN if is_ours else CloserHold.FRESH

    def _may_still_send(self, found: bytes) -> bool:
        """Return whether an exit of a closer that died with the lock may still be on its way, from when it was first seen."""
        if not found or not self._request_seconds or _is_given_back(found):
            return False
        if found != self._dead:
            self._dead, self._dead_until = found, self._monotonic() + self._request_seconds
        return self._monotonic() < self._dead_until

    def give_back(self) -> None:
        """Give the lock back: nothing of ours is on its way. Its record tells us later whether anybody had it since."""
        if self._held:
            self._held = False
            _write_record(self._file, self._given_back)
            _unlock(self._file)

    @property
    def holder(self) -> str:
        """Return who had the lock last, for people."""
        return _holder_text(_read_holder(self._file))

    def close(self) -> None:
        """Give the lock back for good."""
        with contextlib.suppress(OSError):
            os.close(self._file)


class SoleCloser:
    """The closer's lock of a world with one process: a simulation, a benchmark in memory."""

    holder = "this process"

    def take(self) -> CloserHold:
        """Return that it was ours all along."""
        return CloserHold.UNBROKEN

    def give_back(self) -> None:
        """Keep it."""


class LockView:
    """A lock seen by a process that does not have it. `path` need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def holder(self) -> LockHolder | None:
        """Return who holds the lock, None when nobody does. Raises VeloxError when that cannot be found out."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise VeloxError(f"{self.path} cannot be read: {error.strerror}; correct its rights") from error
        try:
            if not _is_locked(file):
                return None
            return _read_holder(file) or LockHolder(host="", pid=0, started="")
        finally:
            os.close(file)


def last_holder(path: Path) -> LockHolder | None:
    """Return who had a lock last, held or not; None when nobody had it or the file cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _read_holder(file)
    finally:
        os.close(file)


def end_holder(holder: LockHolder, wait_seconds: float, *, by: signal.Signals = signal.SIGKILL) -> EndOfHolder:
    """Kill the very process that a lock file names, or ask it to end, and wait for that. Another with its id is left alone."""
    if holder.host != socket.gethostname() or holder.pid <= 0 or not holder.started:
        return EndOfHolder.NOT_VERIFIED
    try:
        process = os.pidfd_open(holder.pid)  # from here on the id cannot pass to another process unnoticed
    except ProcessLookupError:
        return EndOfHolder.GONE
    except OSError:
        return EndOfHolder.NOT_VERIFIED
    try:
        if process_start(holder.pid) != holder.started:
            return EndOfHolder.NOT_VERIFIED
        try:
            signal.pidfd_send_signal(process, by)
        except ProcessLookupError:
            return EndOfHolder.GONE
        except PermissionError:
            return EndOfHolder.NOT_VERIFIED
        poll = select.poll()
        poll.register(process, select.POLLIN)
        return EndOfHolder.KILLED if poll.poll(wait_seconds * 1_000) else EndOfHolder.SURVIVED
    finally:
        os.close(process)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise VeloxError(f"{path} cannot be made: {error.strerror}; make the folder writable, or set VELOX__VAR") from error
    with contextlib.suppress(OSError):  # a disk that is full already keeps nobody from the lock
        os.posix_fallocate(file, 0, _RECORD_BYTES)
    return file


def _lock(file: int) -> bool:
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
    except OSError:
        return False
    return True


def _unlock(file: int) -> None:
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_UNLCK))


def _is_locked(file: int) -> bool:
    """Return whether another holds the lock, without taking it: a look must not turn away whoever takes it meanwhile.

    Raises: VeloxError when the kernel does not say.
    """
    try:
        answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK))
    except OSError as error:
        raise VeloxError(
            f"the kernel does not say who holds a lock of a run: {error.strerror}; use a local file system"
        ) from error
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _whole_file(kind: int) -> bytes:
    """Return the kernel's `struct flock` for a whole file: the lock of an open file, which ends with its last descriptor."""
    return _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0)


def settle_closer_lock(path: Path) -> None:
    """Note, after a take-over has waited, that nothing of the last closer is on its way, unless somebody has the lock."""
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            holder = _read_holder(file)
            if holder is not None and _lock(file):
                _write_record(file, _record(holder, given_back=True))
        finally:
            os.close(file)


def _record(holder: LockHolder, *, given_back: bool = False) -> bytes:
    body: dict[str, object] = {"host": holder.host, "pid": holder.pid, "started": holder.started}
    return orjson.dumps({**body, "given_back": True} if given_back else body)


def _is_given_back(record: bytes) -> bool:
    """Return whether a record says so; one that is not whole does not."""
    try:
        return bool(orjson.loads(record)["given_back"])
    except (ValueError, KeyError, TypeError):
        return False


def _write_record(file: int, record: bytes) -> None:
    """Name the holder, over the record that is there: its room is the file's since `_open`, however full the disk is now.

    Nothing is cut off first, so that no moment and no failure leaves a file that names nobody.
    """
    with contextlib.suppress(OSError):
        os.pwrite(file, record.ljust(_RECORD_BYTES - 1) + b"\n", 0)


def _read_record(file: int) -> bytes:
    """Return the record without its padding: blanks, or zeros where nobody has written yet. Raises OSError."""
    return os.pread(file, _RECORD_BYTES, 0).rstrip(b"\0 \n")


def _read_holder(file: int) -> LockHolder | None:
    try:
        body = orjson.loads(_read_record(file))
        return LockHolder(host=str(body["host"]), pid=int(body["pid"]), started=str(body["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _holder_text(holder: LockHolder | None) -> str:
    return "an unknown process" if holder is None else f"process {holder.pid}"
