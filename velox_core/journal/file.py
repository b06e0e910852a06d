"""The file journal: what a replay writes on its hot path, and what intents fall back to when SQL is away.

- One line of JSON for each event, then one line `#` with the digests of what was committed together. Lines after the
  last such line were never committed; the next commit replaces them.
- `append` encodes at once, so a body may change afterwards; `commit` hashes and writes in one go.
- A failed write is taken back: the file ends at its last commit, and the events stay buffered.
- A replay sweep may write less often (`write_every_events`): its commits return at once until so many events wait, and
  `flush` or `close` writes the rest. What such a journal loses in a crash, the replay makes again.
- One writer at a time (kernel lock); readers need none.
- Imports nothing but orjson: the replay process stays light.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import orjson

from velox_core.domain.errors import InvariantError, JournalUnavailable
from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.journal.chain import GENESIS

_dumps: Final = orjson.dumps
_DIGEST_HEX = 64


class FileJournal:
    """An append-only journal in one file.

    Args:
        path: the file; its folder is created.
        fsync: make each commit survive a power cut, not only a crash of the process.
        write_every_events: 1 makes every commit durable; more is for replays, whose events can be made again.
    Raises: JournalUnavailable when the file cannot be opened, has another writer, or its chain is broken.
    """

    def __init__(self, path: Path, *, fsync: bool = False, write_every_events: int = 1) -> None:
        self._path = path
        self._fsync = fsync
        self._write_every_events = write_every_events
        self._pending: list[bytes] = []
        self._add = self._pending.append
        self._file = _open_for_appending(path)
        self._digest, self._sequence, self._size = GENESIS, 0, 0
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(os.close, self._file)
            for line, digest, end in _committed(path):
                self._sequence, self._digest, self._size = _head(line)[0], digest, end
            self._torn = os.fstat(self._file).st_size > self._size
            self._check_tail()
            on_failure.pop_all()

    def append(self, kind: EventKind, ts_ms: int, body: Body) -> None:
        """Add one event. Raises InvariantError for a body that is not JSON."""
        sequence = self._sequence + 1
        try:
            self._add(_dumps((sequence, ts_ms, kind, body)))
        except TypeError as error:
            raise InvariantError(f"{kind} event {body!r} cannot be journaled: {error}") from error
        self._sequence = sequence

    def commit(self) -> None:
        """Write what was appended, once `write_every_events` wait. Raises JournalUnavailable; the events stay in order."""
        if len(self._pending) >= self._write_every_events:
            self.flush()

    def flush(self) -> None:
        """Write what was appended. Raises JournalUnavailable; the events stay buffered and in order."""
        pending = self._pending
        if not pending:
            return
        digest = self._digest
        digests = []
        for line in pending:
            digest = sha256(digest + line).digest()
            digests.append(digest)
        chunk = b"%b\n#%b\n" % (b"\n".join(pending), b"".join(digests).hex().encode())
        self._write(chunk)
        self._size += len(chunk)
        self._digest = digest
        pending.clear()

    def _write(self, chunk: bytes) -> None:
        try:
            if self._torn:
                os.ftruncate(self._file, self._size)
                self._torn = False
            written = os.write(self._file, chunk)
            while written < len(chunk):
                written += os.write(self._file, chunk[written:])
            if self._fsync:
                os.fsync(self._file)
        except OSError as error:
            self._torn = True
            raise JournalUnavailable(
                f"cannot write {self._path}: {error.strerror}: free the disk or correct its rights"
            ) from error

    def _check_tail(self) -> None:
        """Refuse to cut off what is not the beginning of our own next commit. Raises JournalUnavailable."""
        if not self._torn:
            return
        ours = b"[%d," % (self._sequence + 1)
        tail = os.pread(self._file, len(ours), self._size)
        if not ours.startswith(tail):
            raise JournalUnavailable(
                f"{self._path} is not a file journal, or was damaged after event {self._sequence}: move it away"
            )

    def events(self, kinds: Iterable[EventKind] | None = None) -> Iterator[JournalEvent]:
        """Return the committed events, oldest first. Raises JournalUnavailable where the chain is broken."""
        if self._write_every_events > 1:
            self.flush()
        return read_events(self._path, kinds)

    def newest_halt(self) -> int:
        """Return 0: the file has one writer, who knows every halt that is in it."""
        return 0

    @property
    def digest(self) -> str:
        """Return the digest of the newest written event in hex, zeros for none."""
        return self._digest.hex()

    def close(self) -> None:
        """Release the file. What was not committed is gone; what a relaxed journal still holds back is written first.

        Raises: JournalUnavailable when that cannot be written; the file is released all the same.
        """
        try:
            if self._write_every_events > 1:
                self.flush()
        finally:
            os.close(self._file)


def read_events(path: Path, kinds: Iterable[EventKind] | None = None) -> Iterator[JournalEvent]:
    """Read a file journal, checking its chain on the way. Raises JournalUnavailable."""
    wanted = frozenset(EventKind if kinds is None else kinds)
    for line, digest, _ in _committed(path):
        sequence, ts_ms, kind, body = _event(path, line)
        if kind in wanted:
            yield JournalEvent(sequence, ts_ms, kind, body, digest.hex())


def verify_chain(path: Path) -> int | None:
    """Return the first broken sequence of a file journal, None when its chain holds. Raises JournalUnavailable."""
    try:
        for _ in _committed(path):
            pass
    except _BrokenChain as error:
        return error.sequence
    return None


def read_raw(path: Path) -> Iterator[tuple[int, int, EventKind, Body, bytes, str]]:
    """Read (sequence, ts_ms, kind, body, the body's own bytes, digest in hex), for an import that keeps the digests.

    Raises: JournalUnavailable.
    """
    for line, digest, _ in _committed(path):
        sequence, ts_ms, kind, body = _event(path, line)
        start = len(b'[%d,%d,"%s",' % (sequence, ts_ms, kind.encode()))
        yield sequence, ts_ms, kind, body, line[start:-1], digest.hex()


class _BrokenChain(JournalUnavailable):
    """The chain of a file breaks at `sequence`."""

    def __init__(self, path: Path, sequence: int) -> None:
        self.sequence = sequence
        super().__init__(f"{path}: the hash chain breaks at event {sequence}: the file was changed or damaged; restore it")


def _open_for_appending(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JournalUnavailable(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise JournalUnavailable(f"{path} is being written by another process: a run has one writer") from None
    return file


def _committed(path: Path) -> Iterator[tuple[bytes, bytes, int]]:
    """Return (line, digest, offset after its commit) of each committed event. Raises _BrokenChain, JournalUnavailable."""
    batch: list[bytes] = []
    digest, sequence, offset = GENESIS, 0, 0
    try:
        with path.open("rb") as file:
            for line in file:
                offset += len(line)
                if not line.startswith(b"#"):
                    batch.append(line[:-1])
                    continue
                if not line.endswith(b"\n"):
                    return
                if len(line) != 2 + _DIGEST_HEX * len(batch):
                    raise _BrokenChain(path, sequence + 1)
                for position, event in enumerate(batch):
                    digest = sha256(digest + event).digest()
                    sequence += 1
                    stored = line[1 + _DIGEST_HEX * position : 1 + _DIGEST_HEX * (position + 1)]
                    if digest.hex().encode() != stored or _head(event)[0] != sequence:
                        raise _BrokenChain(path, sequence)
                    yield event, digest, offset
                batch = []
    except OSError as error:
        raise JournalUnavailable(f"cannot read {path}: {error.strerror}") from error


def _head(line: bytes) -> tuple[int, int]:
    """Return (sequence, ts_ms) of a line, (0, 0) when it is none of ours."""
    sequence, _, rest = line[1:].partition(b",")
    ts_ms = rest.partition(b",")[0]
    return (int(sequence), int(ts_ms)) if sequence.isdigit() and ts_ms.removeprefix(b"-").isdigit() else (0, 0)


def _event(path: Path, line: bytes) -> tuple[int, int, EventKind, Body]:
    try:
        sequence, ts_ms, kind, body = orjson.loads(line)
        return sequence, ts_ms, EventKind(kind), body
    except ValueError as error:
        raise JournalUnavailable(f"{path}: event {line[:80]!r} cannot be read: {error}; it needs a newer VELOX") from error
