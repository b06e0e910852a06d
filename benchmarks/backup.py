"""What a verified backup of a large journal and a log archive cost, and whether the backup holds up the writer beside it.

    python -m benchmarks.backup --json
    python -m benchmarks.backup --megabytes 200 --rounds 3

- `over_bare_ratio`: snapshot, compression with hashes, tables and hash chain read, unpacked into an empty place and compared
  (bytes, integrity check, rows), against the bare sum of the same steps: one `backup` call, zstd -3, unpack, integrity check.
- `stall_ms_max`: the longest commit of a process that journals all the while, during ours and while the backup is given to a
  folder (`delivered`, which the bare steps have not got); beside it the longest during the bare steps and without anything.

- `archive_rate_ratio`: the log archive (lines of the date picked, compressed, hashed, read back, synced) against zstd -3 alone
  over the same file, in MB/s; `--megabytes` of lines as a busy day writes them.

Ours and the bare steps take turns, so that both see the same machine and the same cache. Only ratios mean something.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import zstandard

from velox_core.archive import archive_date
from velox_core.backup.folder_place import FolderDestination
from velox_core.backup.make import make_parts
from velox_core.backup.manifest import PartKind
from velox_core.backup.naming import MANIFEST_FILE
from velox_core.backup.sources import Source
from velox_core.domain.events import Body, EventKind
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal
from velox_core.logs import LOG_FILES, RISK

DAY = date(2024, 1, 15)
RUN = RunIdentity(scope_key="simulated:measured", trading_date=DAY)
EVENTS_PER_COMMIT = 5_000
WRITE_EVERY_SECONDS = 0.01
QUIET_SECONDS = 3.0


def decision(number: int) -> Body:
    """Return a refusal with its numbers, the event that a busy day has most of."""
    return {
        "strategy": "opening_range",
        "symbol": f"SYM{number % 50}",
        "side": "BUY" if number % 2 else "SELL",
        "kind": "ENTRY",
        "asked": 10,
        "quantity": 1,
        "approved": False,
        "layer": number % 7 + 1,
        "code": "POSITION_EXISTS",
        "reason": "Position already exists",
        "client_order_id": None,
        "numbers": {"price_paise": 390_000 + number % 997, "loss_paise": number * 7_919 % 200_003, "limit_paise": 200_000},
        "signal_reason": f"close {390_000 + number % 997} above the range",
    }


def fill_journal(path: Path, megabytes: int) -> int:
    """Write a journal of a size; returns its number of events."""
    number = 0
    with closing(SqlJournal(f"sqlite:///{path}", RUN)) as journal:
        while path.stat().st_size < megabytes * 1_000_000:
            for _ in range(EVENTS_PER_COMMIT):
                number += 1
                journal.append(EventKind.DECISION, number, decision(number))
            journal.commit()
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return number


def write_on(path: Path) -> None:
    """Journal a decision each 10 ms until the standard input ends; print when each commit began and how long it took."""
    import select

    number = 0
    with closing(SqlJournal(f"sqlite:///{path}", RunIdentity(scope_key="simulated:writer", trading_date=DAY))) as journal:
        print("ready", flush=True)
        lines = []
        while not select.select([sys.stdin], [], [], WRITE_EVERY_SECONDS)[0]:
            number += 1
            began = time.monotonic()
            journal.append(EventKind.DECISION, number, decision(number))
            journal.commit()
            lines.append(f"{began} {(time.monotonic() - began) * 1_000}")
    print("\n".join(lines), flush=True)


@contextmanager
def writer(path: Path) -> Iterator[list[tuple[float, float]]]:
    """Run the writer beside; afterwards the list holds (moment, milliseconds) of each commit."""
    commits: list[tuple[float, float]] = []
    command = [sys.executable, "-m", "benchmarks.backup", "--write-on", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None or process.stdin is None or process.stdout.readline() != "ready\n":
            raise SystemExit("the writer did not start")
        yield commits
        process.stdin.close()
        commits += [(float(began), float(took)) for began, took in (line.split() for line in process.stdout if line.strip())]


def bare(journal: Path, folder: Path) -> dict[str, float]:
    """Do the bare steps; returns the seconds of each."""
    copy, packed, restored = folder / "copy.db", folder / "packed.zst", folder / "restored.db"
    marks = [time.monotonic()]
    with closing(sqlite3.connect(journal)) as origin, closing(sqlite3.connect(copy)) as target:
        origin.backup(target, pages=-1)
    marks.append(time.monotonic())
    with copy.open("rb") as source, packed.open("wb") as sink:
        zstandard.ZstdCompressor(level=3).copy_stream(source, sink)
    marks.append(time.monotonic())
    with packed.open("rb") as source, restored.open("wb") as sink:
        zstandard.ZstdDecompressor().copy_stream(source, sink)
    marks.append(time.monotonic())
    with closing(sqlite3.connect(restored)) as connection:
        verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
    marks.append(time.monotonic())
    if verdict != "ok":
        raise SystemExit(f"the bare copy is damaged: {verdict}")
    names = ("backup", "zstd", "unpack", "integrity")
    return {name: after - before for name, before, after in zip(names, marks, marks[1:], strict=False)}


def ours(journal: Path, folder: Path) -> dict[str, float]:
    """Make a verified backup; returns the seconds."""
    staging, scratch = folder / "staging", folder / "scratch"
    staging.mkdir()
    scratch.mkdir()
    began = time.monotonic()
    made = make_parts([Source(kind=PartKind.JOURNAL, origin="journal.db", path=journal)], [], staging, scratch)
    ended = time.monotonic()
    if made.missing or len(made.parts) != 1:
        raise SystemExit(f"the backup is not good: {made.missing}")
    listed = json.dumps({"parts": [part.to_json() for part in made.parts]})
    (staging / MANIFEST_FILE).write_text(listed, encoding="utf-8")  # the copies are compared with what it says
    FolderDestination(folder / "destination").put(staging, DAY.isoformat(), "benchmark")
    return {"all": ended - began, "delivered": time.monotonic() - ended}


def measure(megabytes: int, rounds: int) -> dict[str, Any]:
    """Return the figures."""
    windows: dict[str, list[tuple[float, float]]] = {"quiet": [], "bare": [], "ours": []}
    steps: dict[str, list[dict[str, float]]] = {"bare": [], "ours": []}
    with tempfile.TemporaryDirectory(prefix="velox-benchmark-", dir=".") as name:
        journal = Path(name) / "journal.db"
        events = fill_journal(journal, megabytes)
        with writer(journal) as commits:
            time.sleep(QUIET_SECONDS)
            windows["quiet"].append((time.monotonic() - QUIET_SECONDS, time.monotonic()))
            for number in range(rounds):
                for kind, work in (("bare", bare), ("ours", ours)):
                    folder = Path(name) / f"{kind}{number}"
                    folder.mkdir()
                    began = time.monotonic()
                    steps[kind].append(work(journal, folder))
                    windows[kind].append((began, time.monotonic()))
                    shutil.rmtree(folder)
                    time.sleep(1.0)
    sums = {kind: [sum(each.values()) - each.get("delivered", 0.0) for each in steps[kind]] for kind in steps}
    stalls = {kind: _longest(commits, spans) for kind, spans in windows.items()}
    return {
        "megabytes": megabytes,
        "events": events,
        "over_bare_ratio": round(median(o / b for o, b in zip(sums["ours"], sums["bare"], strict=True)), 3),
        "bare_seconds": [round(total, 3) for total in sums["bare"]],
        "ours_seconds": [round(total, 3) for total in sums["ours"]],
        "steps": {
            kind: {name: round(median(each[name] for each in steps[kind]), 3) for name in steps[kind][0]} for kind in steps
        },
        "stall_ms_max": stalls["ours"],
        "stall_ms_max_bare": stalls["bare"],
        "stall_ms_max_quiet": stalls["quiet"],
        "commits": len(commits),
    }


def fill_log(path: Path, megabytes: int) -> None:
    """Write a log of a size, of lines as the gate writes them."""
    number = 0
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1_000_000:
            for _ in range(EVENTS_PER_COMMIT):
                number += 1
                engine = f"{DAY} {9 + number // 3_600 % 6:02d}:{number // 60 % 60:02d}:{number % 60:02d}"
                refused = f"[RISK_CHECK] opening_range/SYM{number % 50}: REJECTED - Position already exists"
                numbers = f"price {390_000 + number * 7_919 % 99_991} loss {number * 104_729 % 200_003}"
                file.write(f"2026-11-23 09:31:00,{number % 1_000:03d}+05:30 INFO [{engine}] {refused} ({numbers})\n")


def measure_archive(megabytes: int, rounds: int) -> dict[str, Any]:
    """Return the figures of the log archive."""
    plain, archived = [], []
    with tempfile.TemporaryDirectory(prefix="velox-benchmark-", dir=".") as name:
        source, packed = Path(name) / "logs", Path(name) / "packed.zst"
        source.mkdir()
        log = source / LOG_FILES[RISK]
        fill_log(log, megabytes)
        for number in range(rounds):
            began = time.monotonic()
            with log.open("rb") as file, packed.open("wb") as sink:
                zstandard.ZstdCompressor(level=3).copy_stream(file, sink)
            middle = time.monotonic()
            target = Path(name) / f"archive{number}"
            archive_date(source, target, DAY, [log.name], keep_files=10, wall_ms=1)
            plain.append(middle - began)
            archived.append(time.monotonic() - middle)
    return {
        "archive_rate_ratio": round(median(p / a for p, a in zip(plain, archived, strict=True)), 3),
        "archive_seconds": [round(each, 3) for each in archived],
        "zstd_seconds": [round(each, 3) for each in plain],
    }


def _longest(commits: list[tuple[float, float]], spans: list[tuple[float, float]]) -> float:
    found = [took for began, took in commits if any(start <= began + took / 1_000 and began <= end for start, end in spans)]
    return round(max(found, default=0.0), 1)


def main() -> None:
    """Measure, or be the writer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write-on", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write_on is not None:
        write_on(options.write_on)
        return
    figures = measure(options.megabytes, options.rounds) | measure_archive(options.megabytes, options.rounds)
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        print(f"{name:<22}{value}")


if __name__ == "__main__":
    main()
