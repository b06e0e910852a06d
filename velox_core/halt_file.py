"""The halt file: JSON lines, append-only, the halt's last refuge when ledger and journal are gone.

- An append is on the disk before it returns; creating the file makes its folder entry durable too.
- Each record begins on a line of its own, so a torn line damages itself only, and no lock is needed between writers.
- What cannot be read is a halt: the readable records, and a FAULT record that names the damage. A file that is
  missing has no records.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import orjson

from velox_core.domain.errors import VeloxError
from velox_core.domain.halts import DAMAGE_FOUND_BY, HaltKind, HaltRecord
from velox_core.domain.time import ist_date

HALT_FILE = "halt.jsonl"
UNREADABLE_HALT_ID = "HALT-FILE-UNREADABLE"
GARBLED_HALT_ID_PREFIX = "HALT-FILE-GARBLED-"


class JsonLinesHaltFile:
    """The halt records of one account.

    Args:
        path: the file; it and its folder are created by the first `append`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def records(self) -> list[HaltRecord]:
        """Return all records, oldest first. What cannot be read answers with a FAULT halt, never with none."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            return [self._fault(UNREADABLE_HALT_ID, f"cannot be read ({error.strerror}): correct its rights or its disk")]
        records, garbled = [], []
        for line in content.splitlines():
            if not line.strip():
                continue
            try:
                records.append(_record(line))
            except (ValueError, KeyError, TypeError):
                garbled.append(line)
        if garbled:
            name = GARBLED_HALT_ID_PREFIX + hashlib.sha256(b"\n".join(garbled)).hexdigest()[:8]
            why = (
                f"has {len(garbled)} line(s) that are no halt records: a halt may be lost; inspect the file; "
                "the end of day clears it"
            )
            records.insert(0, self._fault(name, why))
        return records

    def append(self, record: HaltRecord) -> None:
        """Add one record, durably. Raises VeloxError."""
        line = b"\n" + orjson.dumps(record.to_body()) + b"\n"
        try:
            is_new = not self._path.exists()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if os.write(file, line) != len(line):
                    raise VeloxError(f"halt {record.halt_id} was written to {self._path} in part only: free some disk space")
                os.fsync(file)
            finally:
                os.close(file)
            if is_new:
                _sync_folder(self._path.parent)
        except OSError as error:
            raise VeloxError(
                f"halt {record.halt_id} cannot be written to {self._path}: {error.strerror}: correct the disk or its rights"
            ) from error

    def stamp(self) -> tuple[int, int, int]:
        """Return (inode, size, time of the last change), zeros for a file that is not there or cannot be looked at."""
        try:
            found = self._path.stat()
        except OSError:
            return 0, 0, 0
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _fault(self, halt_id: str, why: str) -> HaltRecord:
        """Return the halt that stands for damage; it is dated by the file's last change."""
        try:
            at_ms = self._path.stat().st_mtime_ns // 1_000_000
        except OSError:
            at_ms = 0
        return HaltRecord(
            halt_id=halt_id,
            kind=HaltKind.FAULT,
            trading_date=ist_date(at_ms),
            reason=f"{self._path} {why}",
            by=DAMAGE_FOUND_BY,
            at_ms=at_ms,
        )


def _record(line: bytes) -> HaltRecord:
    """Read one line. Raises ValueError, KeyError or TypeError when it is not a whole record."""
    body = orjson.loads(line)
    if not body["halt_id"]:
        raise ValueError("a halt record without an id")
    return HaltRecord.from_body(body)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
