"""The project's own columnar format: one Parquet file per date and a manifest, written by `velox data import`.

- A file holds `ts` (start of the bar, UTC), `symbol`, `open_paise`, `high_paise`, `low_paise`, `close_paise`, `volume`: whole
  numbers, so that nothing is rounded twice.
- The manifest names the sources and their sha256, how their times were meant, the rules' version, and per date the file, its
  sha256, its counts and what was dropped. It alone says what is in the folder.
- Every file is written under a temporary name, synced and renamed; the manifest comes last, so that a reader sees the old
  import or the new one. An import of other data is never overwritten unless that is said.
- A file that is not as the manifest says, or a manifest that was changed, is a DataError.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from velox_core.domain.errors import DataError
from velox_core.domain.market.bars import DayColumns, RowDrops
from velox_core.domain.time import MS_PER_MINUTE
from velox_core.feeds.folders import MANIFEST_NAME

FORMAT = "velox columnar bars"
FORMAT_VERSION = 1
RULES_VERSION = 1  # raised when a rule of `quality` or `prints` changes, so that an import is made again
_MANIFEST_BYTES_MAX = 64 * 1024**2
_CHUNK_BYTES = 1024**2
_DAY_FILE = re.compile(r"\d{4}-\d\d-\d\d-[0-9a-f]{12}\.parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDay:
    """One date of an import, as the manifest has it. Prices in paise."""

    day: date
    file: str
    sha256: str
    bars: int
    symbols: tuple[str, ...]
    bar_minutes: int
    previous_close_paise: Mapping[str, int]
    findings: tuple[RowDrops, ...]

    def verified(self, folder: Path) -> Path:
        """Return the file's path. Raises DataError when it is gone or not what was imported."""
        path = folder / self.file
        if digest_of(path) != self.sha256:
            raise DataError(f"{path} is not the file that was imported (its sha256 differs); import the data again")
        return path

    def to_json(self) -> dict[str, object]:
        """Return the manifest's entry."""
        return {
            "date": self.day.isoformat(),
            "file": self.file,
            "sha256": self.sha256,
            "bars": self.bars,
            "symbols": list(self.symbols),
            "bar_minutes": self.bar_minutes,
            "previous_close_paise": dict(self.previous_close_paise),
            "quality": [drop.to_json() for drop in self.findings],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an import holds.

    Attributes:
        source: name of what was imported.
        inputs: what it was made of, as JSON values: sources with sha256, options, versions.
        days: by date, ascending.
        left_out: dates that could not be used, with the reason.
    """

    source: str
    inputs: Mapping[str, Any]
    days: tuple[StoredDay, ...]
    left_out: Mapping[str, str]

    @property
    def dates(self) -> list[date]:
        """Return the dates, oldest first."""
        return [stored.day for stored in self.days]

    def day(self, day: date, folder: Path) -> StoredDay:
        """Return one date. Raises DataError when the import does not hold it."""
        for stored in self.days:
            if stored.day == day:
                return stored
        reason = self.left_out.get(day.isoformat())
        if reason:
            raise DataError(f"{day} was left out of the import {folder}: {reason}")
        held = f"{len(self.days)} dates from {self.days[0].day} to {self.days[-1].day}" if self.days else "no date"
        raise DataError(f"no bars of {day} in {folder}; it has {held}; choose one of its dates or another path")

    def to_json(self) -> dict[str, object]:
        """Return the manifest's content."""
        return {
            "format": FORMAT,
            "source": self.source,
            "inputs": dict(self.inputs),
            "days": [stored.to_json() for stored in self.days],
            "left_out": dict(self.left_out),
        }


def is_store(path: Path) -> bool:
    """Return whether a path is a folder that `velox data import` wrote."""
    return path.is_dir() and (path / MANIFEST_NAME).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an import. Raises DataError when it cannot be read or is not one of this version."""
    path = folder / MANIFEST_NAME
    try:
        with path.open("rb") as stream:
            body = json.loads(stream.read(_MANIFEST_BYTES_MAX))
        if body.pop("digest") != _digest_of_json(body):
            raise DataError(f"{path} was changed since the import (its digest differs); import the data again")
        if body["format"] != FORMAT or body["inputs"]["format_version"] != FORMAT_VERSION:
            raise DataError(f"{path} is of another version of the format; import the data again")
        days = tuple(_stored_day(entry) for entry in body["days"])
        left_out = {str(day): str(reason) for day, reason in body["left_out"].items()}
        return Manifest(source=str(body["source"]), inputs=dict(body["inputs"]), days=days, left_out=left_out)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is not a manifest of `velox data import` ({error!r}); import the data again") from error


def write_store(
    folder: Path,
    source: str,
    inputs: Mapping[str, Any],
    days: Iterable[tuple[DayColumns, Sequence[int]]],
    left_out: Mapping[str, str],
) -> Manifest:
    """Write an import into a folder and return its manifest. Raises DataError when it cannot be written.

    Args:
        folder: where; made when it is not there. What an import before left there goes once the new manifest stands.
        source: the name of what was imported.
        inputs: what it is made of, JSON values.
        days: the dates, each with the moments at which continuous trading begins, epoch ms, ascending.
        left_out: dates that could not be used, with the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stored = tuple(_write_day(folder, day, opens_ms) for day, opens_ms in days)
        versions = {"format_version": FORMAT_VERSION, "rules_version": RULES_VERSION}
        manifest = Manifest(source=source, inputs={**inputs, **versions}, days=stored, left_out=left_out)
        body = manifest.to_json()
        text = json.dumps({**body, "digest": _digest_of_json(body)}, ensure_ascii=False, indent=1, sort_keys=True)
        _write(folder / MANIFEST_NAME, text.encode())
        _tidy(folder, {day.file for day in stored})
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror}; what was there before is unchanged") from error
    return manifest


def digest_of(path: Path) -> str:
    """Return the sha256 of a file. Raises DataError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check that it is a readable file") from error
    return digest.hexdigest()


def _digest_of_json(body: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(body, ensure_ascii=False, sort_keys=True).encode(errors="replace")).hexdigest()


def _stored_day(entry: Mapping[str, Any]) -> StoredDay:
    file = str(entry["file"])
    if "/" in file or "\\" in file or file.startswith("."):
        raise ValueError(f"{file!r} is not a file of the folder")
    minutes = int(entry["bar_minutes"])
    if minutes < 1:
        raise ValueError(f"bars of {minutes} minutes")
    return StoredDay(
        day=date.fromisoformat(entry["date"]),
        file=file,
        sha256=str(entry["sha256"]),
        bars=int(entry["bars"]),
        symbols=tuple(str(symbol) for symbol in entry["symbols"]),
        bar_minutes=minutes,
        previous_close_paise={str(symbol): int(close) for symbol, close in entry["previous_close_paise"].items()},
        findings=tuple(
            RowDrops(
                rule=str(drop["rule"]),
                count=int(drop["count"]),
                example=str(drop["example"]),
                by_symbol=tuple((str(symbol), int(count)) for symbol, count in drop["by_symbol"].items()),
                kept=bool(drop["kept"]),
            )
            for drop in entry["quality"]
        ),
    )


def _write_day(folder: Path, day: DayColumns, opens_ms: Sequence[int]) -> StoredDay:
    content = _parquet_bytes(day, opens_ms)
    digest = hashlib.sha256(content).hexdigest()
    name = f"{day.trading_date}-{digest[:12]}.parquet"
    _write(folder / name, content)
    closes = zip(day.universe, day.previous_close_paise, strict=True)
    return StoredDay(
        day=day.trading_date,
        file=name,
        sha256=digest,
        bars=day.bar_count,
        symbols=day.universe,
        bar_minutes=day.bar_minutes,
        previous_close_paise={symbol: close for symbol, close in closes if close},
        findings=day.drops,
    )


def _parquet_bytes(day: DayColumns, opens_ms: Sequence[int]) -> bytes:
    """Return a date as Parquet, share by share, each in time order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = np.array([[row.opens, row.highs, row.lows, row.closes, row.volumes] for row in day.rows], dtype=np.int64).transpose(
        2, 0, 1
    )  # share, row, value
    ends = np.array([row.ts_ms for row in day.rows], dtype=np.int64)
    opens = np.array(opens_ms, dtype=np.int64)[np.searchsorted(opens_ms, ends, side="left") - 1]
    bar_ms = day.bar_minutes * MS_PER_MINUTE
    starts = opens + (ends - 1 - opens) // bar_ms * bar_ms  # the last bar may be cut off by the end of trading
    places = [np.nonzero(share[:, 3])[0] for share in table]
    values = np.concatenate([share[rows] for share, rows in zip(table, places, strict=True)])
    codes = np.repeat(np.arange(len(day.universe), dtype=np.int32), [rows.size for rows in places])
    columns = {
        "ts": pa.array(np.concatenate([starts[rows] for rows in places]), pa.timestamp("ms", "UTC")),
        "symbol": pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(list(day.universe), pa.string())),
    }
    for index, name in enumerate(("open_paise", "high_paise", "low_paise", "close_paise", "volume")):
        columns[name] = pa.array(np.ascontiguousarray(values[:, index]), pa.int64())
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, compression="zstd")
    return stream.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Write a file so that its name never stands for half of it."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _tidy(folder: Path, files: set[str]) -> None:
    """Remove the files of the import before, and what a broken one left under temporary names."""
    for path in folder.iterdir():
        old_day = _DAY_FILE.fullmatch(path.name) is not None and path.name not in files
        if path.is_file() and (old_day or (path.name.startswith(".") and ".tmp-" in path.name)):
            path.unlink()
